//! The contract of `wit/headwater.wit` as wasmtime sees it: parameters borrow, results are owned. A module whose exports have other types is refused at load.
//!
//! It is written by hand, since wasmtime 48's `bindgen!` cannot borrow types that a world takes from an interface.

use super::guest::GuestData;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

/// The name of the contract's package.
pub(super) const PACKAGE: &str = "headwater:module";

/// The version that the agent offers; a module of the same 0.x is understood.
pub(super) const VERSION: &str = "0.1.0";

/// The answer of a module: its result, or the reason why it has none.
pub(super) type Answer<R> = Result<R, String>;

// Parameters and results of the exports.
pub(super) type Init<'a> = (&'a str,);
pub(super) type Started = (Answer<()>,);
pub(super) type Process<'a> = (&'a [EventIn<'a>],);
pub(super) type Processed = (Answer<ProcessedOut>,);
pub(super) type Update<'a> = (&'a [GroupIn<'a>],);
pub(super) type Updated = (Answer<Vec<UpdatedOut>>,);
pub(super) type Merge<'a> = (&'a [u8], &'a [u8]);
pub(super) type Merged = (Answer<Vec<u8>>,);
pub(super) type Finish<'a> = (&'a [ClosedIn<'a>],);
pub(super) type StateVersion = (u32,);
pub(super) type Migrate<'a> = (u32, &'a [u8]);
pub(super) type Migrated = (Answer<Vec<u8>>,);
pub(super) type Finished = (Answer<Vec<Vec<u8>>>,);

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct EventIn<'a> {
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) time: u64,
    pub(super) payload: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct EventOut {
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) time: u64,
    pub(super) payload: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct RejectionOut {
    pub(super) index: u32,
    pub(super) reason: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct ProcessedOut {
    pub(super) events: Vec<EventOut>,
    pub(super) rejected: Vec<RejectionOut>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct WindowIn {
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct SampleIn<'a> {
    pub(super) time: u64,
    pub(super) payload: &'a [u8],
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct GroupIn<'a> {
    pub(super) key: &'a str,
    pub(super) window: WindowIn,
    pub(super) state: &'a [u8],
    pub(super) samples: &'a [SampleIn<'a>],
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct UpdatedOut {
    pub(super) state: Vec<u8>,
    pub(super) rejected: Vec<RejectionOut>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct ClosedIn<'a> {
    pub(super) key: &'a str,
    pub(super) window: WindowIn,
    pub(super) state: &'a [u8],
    pub(super) count: u64,
    pub(super) late: u64,
    pub(super) revision: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[expect(dead_code, reason = "modules make them")]
#[component(enum)]
#[repr(u8)]
pub(super) enum LogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Defines all that a module can call, but for WASI.
pub(super) fn add_imports(linker: &mut Linker<GuestData>) -> wasmtime::Result<()> {
    linker.instance(&format!("{PACKAGE}/logging@{VERSION}"))?.func_wrap(
        "log",
        |mut guest: StoreContextMut<'_, GuestData>, (level, message): (LogLevel, String)| {
            guest.data_mut().log.write(level, message);
            Ok(())
        },
    )?;
    let mut state = linker.instance(&format!("{PACKAGE}/state@{VERSION}"))?;
    state.func_wrap("get", |mut guest: StoreContextMut<'_, GuestData>, (name,): (String,)| {
        Ok((guest.data_mut().state.get(&name).map_err(wasmtime::Error::msg)?,))
    })?;
    state.func_wrap(
        "set",
        |mut guest: StoreContextMut<'_, GuestData>, (name, value): (String, Vec<u8>)| {
            Ok((guest.data_mut().state.set(name, value).map_err(wasmtime::Error::msg)?,))
        },
    )?;
    state.func_wrap("remove", |mut guest: StoreContextMut<'_, GuestData>, (name,): (String,)| {
        guest.data_mut().state.remove(name).map_err(wasmtime::Error::msg)
    })
}
