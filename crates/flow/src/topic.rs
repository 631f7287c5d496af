//! Topics and filters by section 4.7 of MQTT 5; pure. (`matches` of `rumqttc` panics on a topic that
//! begins with a character of several bytes.)

/// Returns true if a subscription to `filter`, shared or not, covers `topic`.
pub fn matches(topic: &str, filter: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    // Wildcards at the start do not cover topics that a broker publishes about itself.
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            // Also its parent: `a/#` covers `a`.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, covered: &[&str], others: &[&str]) {
        for topic in covered {
            assert!(matches(topic, filter), "{filter} covers {topic}");
        }
        for topic in others {
            assert!(!matches(topic, filter), "{filter} does not cover {topic}");
        }
    }

    #[test]
    fn filters_cover_what_the_standard_says() {
        check("a/b", &["a/b"], &["a", "a/b/c", "a/", "A/b"]);
        check("a/+", &["a/b", "a/"], &["a", "a/b/c"]);
        check("a/#", &["a", "a/b", "a/b/c"], &["ab", "b"]);
        check("#", &["a", "/", "é/x"], &["$SYS/load"]);
        check("+/x", &["é/x", "/x"], &["$SYS/x"]);
        check("$SYS/#", &["$SYS/load"], &["a"]);
        check("$share/g/a/+", &["a/b"], &["g/a/b", "$share/g/a/b"]);
    }
}
