//! Keyed window aggregation: one sample at a time, over a state that the agent keeps.

use crate::json::JsonObject;
use crate::{log, settings};
use bindings::headwater::module::types::Rejection;
use bindings::{Closed, Group, Updated};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;

/// The contract, as generated.
#[doc(hidden)]
#[allow(missing_docs, reason = "the WIT file is their documentation")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "versioned-aggregate",
        additional_derives: [Clone, PartialEq],
        pub_export_macro: true,
    });
}

pub use bindings::headwater::module::types::Sample;

/// A function from the samples of a key's window to one result. The type is deserialized from the module's
/// settings: `settings = { … }` in the pipeline.
///
/// Whatever order and whatever parts the samples come in, the result has to be the same (up to
/// rounding): the agent updates as they arrive, and merges partial states.
///
/// ```
/// use headwater_module::{Aggregate, Sample, ClosedWindow, export_aggregate};
///
/// /// The sum of a field.
/// #[derive(serde::Deserialize)]
/// struct Sum {
///     field: String,
/// }
///
/// impl Aggregate for Sum {
///     type State = f64;
///
///     fn update(&self, state: &mut f64, sample: &Sample) -> Result<(), String> {
///         *state += sample.object()?.number(&self.field).ok_or("no number")?;
///         Ok(())
///     }
///
///     fn merge(&self, a: f64, b: f64) -> f64 {
///         a + b
///     }
///
///     fn finish(&self, _: &ClosedWindow, state: f64) -> Result<impl serde::Serialize, String> {
///         Ok(std::collections::BTreeMap::from([("sum", state)]))
///     }
/// }
///
/// export_aggregate!(Sum);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "`headwater_module::Aggregate` is not implemented for it",
    note = "a transform is exported with `export_transform!`"
)]
pub trait Aggregate: DeserializeOwned {
    /// The state of one key's window, which the agent keeps between calls as [postcard] bytes: small, and
    /// equal states give equal bytes if there are no hash maps in it. A window starts with the default.
    ///
    /// [postcard]: https://postcard.jamesmunns.com/wire-format
    type State: Serialize + DeserializeOwned + Default;

    /// The version of the form of `State`: one more with each release that reads its bytes otherwise.
    const STATE_VERSION: u32 = 0;

    /// Checks the settings, and fills fields that are no settings (`#[serde(skip)]`). Called once, before
    /// everything else.
    ///
    /// # Errors
    /// A fault of the configuration, in words for the operator: `check` shows it, and no pipeline starts with it.
    fn prepare(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Takes one more sample into the state. Samples come in any order.
    ///
    /// # Errors
    /// The reason why the sample cannot be used, with which it goes to the dead letters. The state has to
    /// be as it was.
    fn update(&self, state: &mut Self::State, sample: &Sample) -> Result<(), String>;

    /// Makes one state of two of the same key: sessions that meet, panes of a hopping window, coarser windows. A
    /// state without samples changes nothing, on either side.
    fn merge(&self, a: Self::State, b: Self::State) -> Self::State;

    /// Makes a state of this version of the bytes of another version, which [`from_bytes`] reads. The agent tries
    /// it on the states of all open windows before this version takes over.
    ///
    /// ```
    /// # use headwater_module::{Aggregate, Sample, ClosedWindow, from_bytes};
    /// /// Count and sum; the release before kept the sum alone.
    /// # #[derive(serde::Deserialize)]
    /// # struct Mean {}
    /// impl Aggregate for Mean {
    ///     type State = (u64, f64);
    ///     const STATE_VERSION: u32 = 1;
    ///
    ///     fn migrate(&self, from: u32, state: &[u8]) -> Result<(u64, f64), String> {
    ///         match from {
    ///             0 => Ok((1, from_bytes(state)?)),
    ///             _ => Err(format!("version {from} is not known")),
    ///         }
    ///     }
    /// #   fn update(&self, _: &mut (u64, f64), _: &Sample) -> Result<(), String> { Ok(()) }
    /// #   fn merge(&self, a: (u64, f64), _: (u64, f64)) -> (u64, f64) { a }
    /// #   fn finish(&self, _: &ClosedWindow, state: (u64, f64)) -> Result<impl serde::Serialize, String> { Ok(state) }
    /// }
    /// # assert_eq!(Mean {}.migrate(0, &2.5_f64.to_le_bytes()), Ok((1, 2.5)));
    /// # assert!(Mean {}.migrate(0, &[1]).is_err() && Mean {}.migrate(2, &[]).is_err());
    /// ```
    ///
    /// # Errors
    /// The reason why the state cannot be read; the version that runs then stays. Without an implementation of
    /// this method no state of another version can be read.
    fn migrate(&self, from: u32, state: &[u8]) -> Result<Self::State, String> {
        let _ = state;
        Err(format!("states of version {from} cannot be read, only those of version {}", Self::STATE_VERSION))
    }

    /// Returns the result of a closed window, which is serialized as JSON. The state may be one without samples.
    ///
    /// # Errors
    /// The reason why there is none, with which the window goes to the dead letters.
    fn finish(&self, window: &ClosedWindow, state: Self::State) -> Result<impl Serialize, String>;
}

/// A closed window, half open: `start` belongs to it, `end` does not. Times in microseconds since
/// the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedWindow {
    /// The key that its samples belong to.
    pub key: String,
    /// The first moment in it.
    pub start: u64,
    /// The first moment after it.
    pub end: u64,
    /// The number of samples used.
    pub count: u64,
    /// The number of samples among them that came after the window had first closed.
    pub late: u64,
    /// The number of the result: 0 the first time, then one more each time late samples change it.
    pub revision: u32,
}

impl Sample {
    /// Reads the payload as a JSON object.
    ///
    /// # Errors
    /// A reason that says at which byte the payload stops being one.
    pub fn object(&self) -> Result<JsonObject<'_>, String> {
        JsonObject::parse(&self.payload)
    }
}

/// Exports an [`Aggregate`] as the module.
#[macro_export]
macro_rules! export_aggregate {
    ($aggregate:ty) => {
        const _: () = {
            use $crate::export::{AggregateExport, aggregate};
            ::std::thread_local! {
                static MODULE: AggregateExport<$aggregate> = const { AggregateExport::new() };
            }
            struct Export;
            impl aggregate::Guest for Export {
                fn init(config: String) -> Result<(), String> {
                    MODULE.with(|module| module.init(&config))
                }
                fn update(groups: Vec<aggregate::Group>) -> Result<Vec<aggregate::Updated>, String> {
                    MODULE.with(|module| module.update(groups))
                }
                fn merge(a: Vec<u8>, b: Vec<u8>) -> Result<Vec<u8>, String> {
                    MODULE.with(|module| module.merge(&a, &b))
                }
                fn finish(windows: Vec<aggregate::Closed>) -> Result<Vec<Vec<u8>>, String> {
                    MODULE.with(|module| module.finish(windows))
                }
                fn state_version() -> u32 {
                    <$aggregate as $crate::Aggregate>::STATE_VERSION
                }
                fn migrate(from: u32, state: Vec<u8>) -> Result<Vec<u8>, String> {
                    MODULE.with(|module| module.migrate(from, &state))
                }
            }
    aggregate::export!(Export with_types_in aggregate);
        };
    };
}

/// The one instance behind the exports.
#[doc(hidden)]
#[derive(Debug)]
pub struct AggregateExport<A>(RefCell<Option<A>>);

// The bound is on each method: on the block, a type without the trait would lack them, in many words.
#[expect(clippy::new_without_default, reason = "it has to be const for a static")]
impl<A> AggregateExport<A> {
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
        A: Aggregate,
    {
        log::hook_panics();
        let mut aggregate: A = settings(config)?;
        aggregate.prepare()?;
        *self.0.borrow_mut() = Some(aggregate);
        Ok(())
    }

    /// The contract's `update`.
    ///
    /// # Errors
    /// Says that a state cannot be read, or written.
    pub fn update(&self, groups: Vec<Group>) -> Result<Vec<Updated>, String>
    where
        A: Aggregate,
    {
        self.with(|aggregate| groups.into_iter().map(|group| update(aggregate, &group)).collect())
    }

    /// The contract's `merge`.
    ///
    /// # Errors
    /// Says that a state cannot be read, or written.
    pub fn merge(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>
    where
        A: Aggregate,
    {
        self.with(|aggregate| encode(&aggregate.merge(decode(a)?, decode(b)?)))
    }

    /// The contract's `finish`.
    ///
    /// # Errors
    /// Names the first window that has no result, and why.
    pub fn finish(&self, windows: Vec<Closed>) -> Result<Vec<Vec<u8>>, String>
    where
        A: Aggregate,
    {
        self.with(|aggregate| windows.into_iter().map(|closed| finish(aggregate, closed)).collect())
    }

    /// The contract's `migrate`.
    ///
    /// # Errors
    /// The reason why the state cannot be read.
    pub fn migrate(&self, from: u32, state: &[u8]) -> Result<Vec<u8>, String>
    where
        A: Aggregate,
    {
        self.with(|aggregate| encode(&aggregate.migrate(from, state)?))
    }

    fn with<R>(&self, call: impl FnOnce(&A) -> Result<R, String>) -> Result<R, String> {
        call(self.0.borrow().as_ref().ok_or("called before `init`")?)
    }
}

fn update<A: Aggregate>(aggregate: &A, group: &Group) -> Result<Updated, String> {
    let mut state = decode(&group.state)?;
    let mut rejected = Vec::new();
    for (index, sample) in (0..).zip(&group.samples) {
        if let Err(reason) = aggregate.update(&mut state, sample) {
            rejected.push(Rejection { index, reason });
        }
    }
    Ok(Updated { state: encode(&state)?, rejected })
}

fn finish<A: Aggregate>(aggregate: &A, closed: Closed) -> Result<Vec<u8>, String> {
    let Closed { key, window, state, count, late, revision } = closed;
    let window = ClosedWindow { key, start: window.start, end: window.end, count, late, revision };
    let value = aggregate.finish(&window, decode(&state)?)?;
    serde_json::to_vec(&value).map_err(|error| format!("failed to write the result: {error}"))
}

fn decode<S: DeserializeOwned + Default>(state: &[u8]) -> Result<S, String> {
    if state.is_empty() { Ok(S::default()) } else { from_bytes(state) }
}

/// Reads a state from the [postcard] bytes that the agent keeps of it, for [`Aggregate::migrate`].
///
/// [postcard]: https://postcard.jamesmunns.com/wire-format
///
/// # Errors
/// A reason that says why the bytes are no such state.
pub fn from_bytes<S: DeserializeOwned>(state: &[u8]) -> Result<S, String> {
    match postcard::take_from_bytes(state) {
        Ok((state, [])) => Ok(state),
        Ok((_, more)) => Err(format!("the state has {} bytes too many", more.len())),
        Err(error) => Err(format!("failed to read the state: {error}")),
    }
}

fn encode<S: Serialize>(state: &S) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(state).map_err(|error| format!("failed to write the state: {error}"))
}
