//! What a stage shows of itself: its counts ([`stage!`]), and whether its threads still run ([`Thread`]).
//!
//! A stage gets a handle of plain counters for its own labels and never sees the registry.
//! Names are `headwater_<stage>_<noun>_<unit>`; counters get `_total` from the encoder. Labels
//! are names from the configuration only, so their number is bounded by it.

mod thread;

use prometheus_client::encoding::EncodeLabelSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::Registry;
#[doc(hidden)]
pub use serde_json;
pub use thread::Thread;

/// The one label of every metric: `name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabel {
    /// The name of the stage that counts.
    pub name: String,
}

/// Held while counts change that belong together, and while the ledger reads them. Never across
/// an await, never two of them by a stage.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Waits until nobody else holds it.
    pub fn take(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One metric, as the reference documentation lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricEntry {
    /// The name under which it is registered, without the `_total` of a counter.
    pub name: &'static str,
    /// Its meaning, without a full stop at its end.
    pub help: String,
    /// The kind of its value.
    pub kind: MetricKind,
    /// The meaning of its label `name`.
    pub label: &'static str,
}

impl MetricEntry {
    /// The name that `/metrics` shows.
    #[must_use]
    pub fn exposed_name(&self) -> String {
        match self.kind {
            MetricKind::Counter => format!("{}_total", self.name),
            MetricKind::Gauge => self.name.to_owned(),
        }
    }
}

/// The kind of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, and starts from 0 with the process.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Declares a stage's handle, its families, their registration and their table in one place.
#[macro_export]
macro_rules! stage {
    ($(#[$doc:meta])* $handle:ident, $families:ident, $prefix:literal, $label:literal, { $($(#[doc = $help:literal])* $field:ident: $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $handle { turn: $crate::Turn, $($(#[doc = $help])* pub $field: $crate::$kind,)* }

        impl $handle {
            /// While this is held nobody reads counts that do not belong together.
            pub fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
                self.turn.take()
            }

            /// All of them by name, as `/status` shows them.
            #[must_use]
            pub fn values(&self) -> $crate::serde_json::Value {
                let values = [$((stringify!($field), $crate::serde_json::Value::from(self.$field.get())),)*];
                values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }
        }

        #[doc = concat!("The families of every [`", stringify!($handle), "`].")]
        #[derive(Clone, Debug, Default)]
        pub struct $families {
            turn: $crate::Family<$crate::NameLabel, $crate::Turn>,
            $($field: $crate::Family<$crate::NameLabel, $crate::$kind>,)*
        }

        impl $families {
            /// The table of these metrics.
            #[must_use]
            pub fn entries() -> Vec<$crate::MetricEntry> {
                vec![$($crate::MetricEntry {
                    name: concat!("headwater_", $prefix, "_", stringify!($field)),
                    help: concat!($($help,)*).trim().trim_end_matches('.').to_owned(),
                    kind: $crate::MetricKind::$kind,
                    label: $label,
                },)*]
            }

            /// Has them shown by the registry.
            pub fn register(&self, registry: &mut $crate::Registry) {
                $(registry.register(
                    concat!("headwater_", $prefix, "_", stringify!($field)),
                    concat!($($help,)*).trim().trim_end_matches('.'),
                    self.$field.clone(),
                );)*
            }

            /// Shows that label no more; handles that are left count for nobody, and the next one begins at 0.
            pub fn forget(&self, name: &str) {
                let label = $crate::NameLabel { name: name.to_owned() };
                self.turn.remove(&label);
                $(self.$field.remove(&label);)*
            }

            /// The handle of that label.
            #[must_use]
            pub fn named(&self, name: &str) -> $handle {
                let label = $crate::NameLabel { name: name.to_owned() };
                let turn = self.turn.get_or_create(&label).clone();
                $handle { turn, $($field: self.$field.get_or_create(&label).clone(),)* }
            }
        }
    };
}
