//! What errors and panics say, on one line.

use std::any::Any;
use std::error::Error;
use std::iter;

/// An error and what it came from; a cause that its error has named already is not said twice.
#[must_use]
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// What a panic said.
#[must_use]
pub fn of_panic(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", words.unwrap_or_else(|| "without words".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[derive(Debug, thiserror::Error)]
    enum Fault {
        #[error("failed to use the outbox")]
        Silent(#[source] std::io::Error),
        #[error("failed to read: {0}")]
        Naming(#[source] std::io::Error),
    }

    #[test]
    fn causes_are_named_once() {
        let cause = || std::io::Error::other("no such block");
        assert_eq!(of(&Fault::Silent(cause())), "failed to use the outbox: no such block");
        assert_eq!(of(&Fault::Naming(cause())), "failed to read: no such block");
    }
}
