//! Map, filter, flat-map, enrich, re-key, re-time: one event at a time.

use crate::json::{self, JsonObject};
use crate::{log, settings};
use bindings::{Processed, Rejection};
use serde::de::DeserializeOwned;
use std::cell::RefCell;

/// The contract, as generated.
#[doc(hidden)]
#[allow(missing_docs, reason = "the WIT file is their documentation")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "stateful-transform",
        additional_derives: [Clone, PartialEq],
        pub_export_macro: true,
    });
    pub use headwater::module::{state, types::Rejection};
}

pub use bindings::Event;

/// A step from one event to any number of events. The type is deserialized from the module's settings:
/// `settings = { … }` in the pipeline. A transform without settings is `struct Name;`.
///
/// ```
/// use headwater_module::{Event, Transform, export_transform};
///
/// #[derive(serde::Deserialize)]
/// struct Scale {
///     field: String,
///     factor: f64,
/// }
///
/// impl Transform for Scale {
///     fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
///         event.map_number(&self.field, |number| number * self.factor)?;
///         Ok(Some(event))
///     }
/// }
///
/// export_transform!(Scale);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transform",
    label = "`headwater_module::Transform` is not implemented for it",
    note = "an aggregate is exported with `export_aggregate!`"
)]
pub trait Transform: DeserializeOwned {
    /// Checks the settings, and fills fields that are no settings (`#[serde(skip)]`). Called once, before
    /// everything else.
    ///
    /// # Errors
    /// A fault of the configuration, in words for the operator: `check` shows it, and no pipeline starts with it.
    fn prepare(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Returns the events that the event becomes, in their order: `Some(event)` passes it on, `None` drops it, and a
    /// `Vec` or any other iterator of several splits it.
    ///
    /// ```
    /// # use headwater_module::{Event, Transform};
    /// # #[derive(serde::Deserialize)]
    /// # struct BySide;
    /// impl Transform for BySide {
    ///     /// Drops what has no key, and gives the others once for each side of the belt.
    ///     fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
    ///         if event.key.is_empty() {
    ///             return Ok(Vec::new());
    ///         }
    ///         let side = |name: &str| Event { key: format!("{}/{name}", event.key), ..event.clone() };
    ///         Ok(vec![side("left"), side("right")])
    ///     }
    /// }
    /// # use headwater_module::testing::{TransformProbe, event};
    /// # let mut probe = TransformProbe::<BySide>::new("{}").unwrap();
    /// # let keys = |events: Vec<Event>| events.into_iter().map(|event| event.key).collect::<Vec<_>>();
    /// # assert_eq!(keys(probe.process(event("{}")).unwrap()), ["k/left", "k/right"]);
    /// # let nobody = Event { key: String::new(), ..event("{}") };
    /// # assert!(probe.process(nobody).unwrap().is_empty());
    /// ```
    ///
    /// # Errors
    /// The reason why the event cannot be used, with which it goes to the dead letters.
    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String>;
}

impl Event {
    /// Reads the payload as a JSON object.
    ///
    /// # Errors
    /// A reason that says at which byte the payload stops being one.
    pub fn object(&self) -> Result<JsonObject<'_>, String> {
        JsonObject::parse(&self.payload)
    }

    /// Returns the number in a field of the payload, which is finite.
    ///
    /// # Errors
    /// A reason that says that the payload is no JSON object, or the field is missing, there twice or not a number.
    pub fn number(&self, field: &str) -> Result<f64, String> {
        Ok(self.object()?.read(field)?.1)
    }

    /// Sets the number in a field of the payload, which is added if it is not there; all else stays as it is,
    /// byte for byte.
    ///
    /// # Errors
    /// A reason that says that the payload is no JSON object, the field is there twice, or the number is not finite.
    /// The event is then as it was.
    pub fn set_number(&mut self, field: &str, number: f64) -> Result<(), String> {
        self.payload = json::set_number(&self.payload, field, number)?;
        Ok(())
    }

    /// Replaces the number in a field of the payload; all else stays as it is, byte for byte.
    ///
    /// # Errors
    /// A reason that says that the payload is no JSON object, the field is missing, there twice or not a number, or the
    /// result is not finite. The event is then as it was.
    pub fn map_number(&mut self, field: &str, map: impl FnOnce(f64) -> f64) -> Result<(), String> {
        self.payload = json::map_number(&self.payload, field, map)?;
        Ok(())
    }
}

/// Exports a [`Transform`] as the module.
#[macro_export]
macro_rules! export_transform {
    ($transform:ty) => {
        const _: () = {
            use $crate::export::{TransformExport, transform};
            ::std::thread_local! {
                static MODULE: TransformExport<$transform> = const { TransformExport::new() };
            }
            struct Export;
            impl transform::Guest for Export {
                fn init(config: String) -> Result<(), String> {
                    MODULE.with(|module| module.init(&config))
                }
                fn process(events: Vec<transform::Event>) -> Result<transform::Processed, String> {
                    MODULE.with(|module| module.process(events))
                }
            }
    transform::export!(Export with_types_in transform);
        };
    };
}

/// The one instance behind the exports.
#[doc(hidden)]
#[derive(Debug)]
pub struct TransformExport<T>(RefCell<Option<T>>);

// The bound is on each method: on the block, a type without the trait would lack them, in many words.
#[expect(clippy::new_without_default, reason = "it has to be const for a static")]
impl<T> TransformExport<T> {
    /// Returns the instance before `init`.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// The contract's `init`.
    ///
    /// # Errors
    /// The fault of the settings.
    pub fn init(&self, config: &str) -> Result<(), String>
    where
        T: Transform,
    {
        log::hook_panics();
        let mut transform: T = settings(config)?;
        transform.prepare()?;
        *self.0.borrow_mut() = Some(transform);
        Ok(())
    }

    /// The contract's `process`.
    ///
    /// # Errors
    /// Only when called before `init`.
    pub fn process(&self, events: Vec<Event>) -> Result<Processed, String>
    where
        T: Transform,
    {
        let mut transform = self.0.borrow_mut();
        let transform = transform.as_mut().ok_or("called before `init`")?;
        let mut out = Processed { events: Vec::with_capacity(events.len()), rejected: Vec::new() };
        for (index, event) in (0..).zip(events) {
            match transform.process(event) {
                Ok(events) => out.events.extend(events),
                Err(reason) => out.rejected.push(Rejection { index, reason }),
            }
        }
        Ok(out)
    }
}
