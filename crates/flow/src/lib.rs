//! The nouns that travel through Headwater: the values that one stage hands to the next.

pub mod aggregation;
pub mod error_text;
mod event;
pub mod json;
mod letter;
mod loss_run;
mod message;
mod position;
mod report;
pub mod rows;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
pub mod topic;

pub use event::Event;
pub use letter::{DeadLetter, StoredLetter, UnfinishedWindow};
pub use loss_run::{LossRun, TimeSpan, UNKNOWN_SPAN};
pub use message::{Message, MqttDelivery, UserProperties, message_digest};
pub use position::{Epoch, Seq};
pub use report::{LossReport, ReportKind};
pub use time::{Timestamp, micros};
