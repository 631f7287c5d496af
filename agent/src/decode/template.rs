//! The template of a key: `{topic[1]}/{field.device}`.

use std::str::FromStr;

use crate::flow::json::JsonScalar;

/// A parsed key template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Topic,
    TopicSegment(usize),
    Field(Vec<String>),
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Brackets do not pair up.
    #[error("a `{{` without its `}}`, or the other way round")]
    Brackets,
    /// Not one of the known placeholders.
    #[error("`{{{0}}}` is unknown: use {{topic}}, {{topic[N]}} (first segment is 0) or {{field.NAME}}")]
    Placeholder(String),
    /// Nothing in it.
    #[error("it is empty: use {{topic}} for one key a topic, or any literal for a single key")]
    Empty,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            push_literal(&mut pieces, &rest[..open])?;
            let (name, after) = rest[open + 1..].split_once('}').ok_or(TemplateError::Brackets)?;
            pieces.push(placeholder(name)?);
            rest = after;
        }
        push_literal(&mut pieces, rest)?;
        if pieces.is_empty() {
            return Err(TemplateError::Empty);
        }
        Ok(Self(pieces))
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) -> Result<(), TemplateError> {
    if text.contains('}') {
        return Err(TemplateError::Brackets);
    }
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str) -> Result<Piece, TemplateError> {
    let unknown = || TemplateError::Placeholder(name.to_owned());
    if name == "topic" {
        return Ok(Piece::Topic);
    }
    if let Some(path) = name.strip_prefix("field.") {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        return if path.iter().any(String::is_empty) { Err(unknown()) } else { Ok(Piece::Field(path)) };
    }
    let index = name.strip_prefix("topic[").and_then(|rest| rest.strip_suffix(']'));
    index.and_then(|index| index.parse().ok()).map(Piece::TopicSegment).ok_or_else(unknown)
}

impl Template {
    /// The payload fields it needs.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(path) => Some(path.as_slice()),
            _ => None,
        })
    }

    pub(super) fn render<'a>(
        &self,
        topic: &str,
        field: impl Fn(&[String]) -> Option<&'a JsonScalar>,
    ) -> Result<String, String> {
        use std::fmt::Write as _;
        let mut key = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => key.push_str(text),
                Piece::Topic => key.push_str(topic),
                Piece::TopicSegment(index) => {
                    let segment = topic.split('/').nth(*index);
                    key.push_str(segment.ok_or_else(|| format!("topic `{topic}` has no segment {index}"))?);
                }
                Piece::Field(path) => {
                    let name = || path.join(".");
                    let scalar = field(path).ok_or_else(|| {
                        format!("field `{}` is missing, or not a number, text or boolean", name())
                    })?;
                    write!(key, "{scalar}").expect("writing to a String cannot fail");
                }
            }
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), TemplateError>) {
        assert_eq!(text.parse::<Template>().map(drop), expected, "{text}");
    }

    #[test]
    fn templates_are_checked_when_read() {
        check("{topic[1]}/x/{field.a.b}", Ok(()));
        check("constant", Ok(()));
        check("", Err(TemplateError::Empty));
        check("{topic", Err(TemplateError::Brackets));
        check("topic}", Err(TemplateError::Brackets));
        check("{topic[x]}", Err(TemplateError::Placeholder("topic[x]".into())));
        check("{field.}", Err(TemplateError::Placeholder("field.".into())));
        check("{device}", Err(TemplateError::Placeholder("device".into())));
    }
}
