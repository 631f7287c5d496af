//! The texts of errors and panics, on one line.

use std::any::Any;
use std::error::Error;
use std::iter;

/// Returns the message of an error and of all its causes. A cause that its error names already is left out.
#[must_use]
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Returns the message of a panic.
#[must_use]
pub fn of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "without a message".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[derive(Debug, thiserror::Error)]
    enum OutboxError {
        #[error("failed to use the outbox")]
        Silent(#[source] std::io::Error),
        #[error("failed to read: {0}")]
        Naming(#[source] std::io::Error),
    }

    #[test]
    fn causes_are_named_once() {
        let cause = || std::io::Error::other("no such block");
        assert_eq!(of(&OutboxError::Silent(cause())), "failed to use the outbox: no such block");
        assert_eq!(of(&OutboxError::Naming(cause())), "failed to read: no such block");
    }
}
