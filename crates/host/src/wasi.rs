//! WASI with nothing behind it, for language runtimes that insist on it: no files, no network, no
//! environment, no arguments. Printed text goes to the module's log; a call that would wait for ever, or
//! end the process, is a trap that says so.
//!
//! Clocks and random numbers are the same in each call: a clock stands at 1970 when the call
//! begins and goes on by a microsecond each time it is read, so that no result can depend on when
//! or where it was computed. The time of an event is in the event.
//!
//! Any version of WASI 0.2 is served: the result of a function is found by its name, and by its type
//! where its name says nothing (an empty list, no option, an error that denies access).

use super::contract::LogLevel;
use super::guest::GuestData;
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type};
use wasmtime::component::{Component, Linker, Resource, ResourceAny, ResourceType, Val};
use wasmtime::{AsContextMut, Engine, Result, StoreContextMut, bail, format_err};

/// The beginning of the names of WASI's interfaces.
pub(super) const NAMESPACE: &str = "wasi:";

/// The random bytes given at once.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// The bytes that may be printed at once.
const PRINTED_BYTES_MAX: u64 = 4096;

/// A stand-in for a stream, a directory or a socket.
struct EmptyResource;

// The kinds of resources: a stream to the log, an event that never comes, or any other.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const NEVER: u32 = 3;
const OTHER: u32 = 4;

/// The clocks and random numbers of one call, which are the same in each.
#[derive(Debug, Default)]
pub(super) struct VirtualWorld {
    looks: u64,
    randoms: u64,
}

impl VirtualWorld {
    fn micros(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// The sequence of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn random(&mut self) -> u64 {
        self.randoms = self.randoms.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.randoms;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// Defines all of WASI that the component imports.
pub(super) fn add_imports(
    linker: &mut Linker<GuestData>,
    component: &Component,
    engine: &Engine,
) -> Result<()> {
    for (name, import) in component.component_type().imports(engine) {
        if let ComponentItem::ComponentInstance(interface) = import.ty
            && name.starts_with(NAMESPACE)
        {
            add_interface(linker, name, &interface, engine)?;
        }
    }
    Ok(())
}

fn add_interface(
    linker: &mut Linker<GuestData>,
    name: &str,
    interface: &ComponentInstance,
    engine: &Engine,
) -> Result<()> {
    let mut instance = linker.instance(name)?;
    let short = name.split_once('@').map_or(name, |(short, _)| short).to_owned();
    for (name, export) in interface.exports(engine) {
        match export.ty {
            ComponentItem::Resource(_) => {
                instance.resource(name, ResourceType::host::<EmptyResource>(), |_, _| Ok(()))?;
            }
            ComponentItem::ComponentFunc(_) => {
                let interface = short.clone();
                let function = name.to_owned();
                instance.func_new(name, move |guest, ty, given, results| {
                    let result = call(guest, &interface, &function, &ty, given)?;
                    results.iter_mut().zip(result).for_each(|(place, result)| *place = result);
                    Ok(())
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Calls a function, and returns its result, if it has one.
fn call(
    mut guest: StoreContextMut<'_, GuestData>,
    interface: &str,
    function: &str,
    ty: &ComponentFunc,
    given: &[Val],
) -> Result<Option<Val>> {
    let kinds = kinds(&mut guest, given)?;
    let world = &mut guest.data_mut().world;
    Ok(Some(match (interface, function) {
        ("wasi:cli/exit", _) => bail!("the module ended itself ({interface}#{function})"),
        ("wasi:cli/stdout", _) => resource(guest, STDOUT)?,
        ("wasi:cli/stderr", _) => resource(guest, STDERR)?,
        ("wasi:clocks/monotonic-clock", "now") => Val::U64(world.micros() * 1000),
        ("wasi:clocks/wall-clock", "now") => instant(world.micros()),
        ("wasi:clocks/monotonic-clock", "resolution") => Val::U64(1000),
        ("wasi:clocks/wall-clock", "resolution") => instant(1),
        ("wasi:clocks/monotonic-clock", _) => resource(guest, NEVER)?,
        ("wasi:random/random" | "wasi:random/insecure", _) => random(world, given)?,
        ("wasi:random/insecure-seed", _) => {
            Val::Tuple(vec![Val::U64(world.random()), Val::U64(world.random())])
        }
        ("wasi:io/poll", "[method]pollable.ready") => Val::Bool(!kinds.contains(&NEVER)),
        ("wasi:io/poll", _) if kinds.iter().all(|kind| *kind == NEVER) => {
            bail!("the module waits ({interface}#{function}), and what for will never come")
        }
        ("wasi:io/poll", "poll") => {
            let ready = (0..).zip(kinds).filter(|(_, kind)| *kind != NEVER);
            Val::List(ready.map(|(index, _)| Val::U32(index)).collect())
        }
        ("wasi:io/streams", "[method]output-stream.check-write") => {
            Val::Result(Ok(Some(Box::new(Val::U64(PRINTED_BYTES_MAX)))))
        }
        ("wasi:io/streams", name) if name.starts_with("[method]output-stream.") && given.len() > 1 => {
            print(guest.data_mut(), kinds.first() == Some(&STDERR), given);
            Val::Result(Ok(None))
        }
        ("wasi:io/streams", name) if name.ends_with("flush") => Val::Result(Ok(None)),
        _ => {
            let Some(ty) = ty.results().next() else { return Ok(None) };
            let result = refused(&ty).map_or_else(|| nothing(&ty, &mut || resource(&mut guest, OTHER)), Ok);
            result.map_err(|_| format_err!("there is nothing behind {interface}#{function}"))?
        }
    }))
}

fn resource(guest: impl AsContextMut, kind: u32) -> Result<Val> {
    Ok(Val::Resource(ResourceAny::try_from_resource(Resource::<EmptyResource>::new_own(kind), guest)?))
}

/// Returns the kind of each resource that the function is given, in their order. It ends what was lent, so it is called
/// once in each call.
fn kinds(guest: &mut StoreContextMut<'_, GuestData>, given: &[Val]) -> Result<Vec<u32>> {
    let mut kinds = Vec::new();
    for value in given {
        match value {
            Val::Resource(one) => kinds.push(one.try_into_resource::<EmptyResource>(&mut *guest)?.rep()),
            // A list of numbers is text, and has none.
            Val::List(values) if matches!(values.first(), Some(Val::Resource(_))) => {
                kinds.extend(self::kinds(guest, values)?);
            }
            _ => {}
        }
    }
    Ok(kinds)
}

fn instant(micros: u64) -> Val {
    let nanoseconds = u32::try_from(micros % 1_000_000 * 1000).unwrap_or_default();
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(micros / 1_000_000)),
        ("nanoseconds".to_owned(), Val::U32(nanoseconds)),
    ])
}

/// Returns as many random bytes as asked for, or one number.
fn random(world: &mut VirtualWorld, given: &[Val]) -> Result<Val> {
    let Some(Val::U64(bytes)) = given.first() else { return Ok(Val::U64(world.random())) };
    if *bytes > RANDOM_BYTES_MAX {
        bail!("the module asks for {bytes} random bytes at once: at most {RANDOM_BYTES_MAX}");
    }
    let bytes = (0..bytes.div_ceil(8)).flat_map(|_| world.random().to_le_bytes()).take(*bytes as usize);
    Ok(Val::List(bytes.map(Val::U8).collect()))
}

/// Writes text on a stream of the module's to its log.
fn print(guest: &mut GuestData, is_error: bool, given: &[Val]) {
    let Some(Val::List(bytes)) = given.get(1) else { return };
    let level = if is_error { LogLevel::Error } else { LogLevel::Debug };
    let byte = |byte: &Val| if let Val::U8(byte) = byte { Some(*byte) } else { None };
    let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
    let text = String::from_utf8_lossy(&bytes);
    if !text.trim().is_empty() {
        guest.log.write(level, text.trim().to_owned());
    }
}

/// Returns the error with which a system says no, where the type has one.
fn refused(ty: &Type) -> Option<Val> {
    const WORDS: [&str; 5] = ["access", "access-denied", "not-supported", "unsupported", "closed"];
    let Type::Result(ty) = ty else { return None };
    let error = match ty.err()? {
        Type::Enum(cases) => {
            let case = cases.names().find(|name| WORDS.contains(name))?;
            Val::Enum(case.to_owned())
        }
        Type::Variant(cases) => {
            let case = cases.cases().find(|case| case.ty.is_none() && WORDS.contains(&case.name))?;
            Val::Variant(case.name.to_owned(), None)
        }
        _ => return None,
    };
    Some(Val::Result(Err(Some(Box::new(error)))))
}

/// Returns the least value of the type.
fn nothing(ty: &Type, resource: &mut dyn FnMut() -> Result<Val>) -> Result<Val> {
    let mut some = |ty: &Type| nothing(ty, resource);
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::U8 => Val::U8(0),
        Type::U16 => Val::U16(0),
        Type::U32 => Val::U32(0),
        Type::U64 => Val::U64(0),
        Type::S32 => Val::S32(0),
        Type::S64 => Val::S64(0),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Tuple(types) => Val::Tuple(types.types().map(|ty| some(&ty)).collect::<Result<_>>()?),
        Type::Record(record) => {
            let fields = record.fields().map(|field| Ok((field.name.to_owned(), some(&field.ty)?)));
            Val::Record(fields.collect::<Result<_>>()?)
        }
        Type::Result(result) => Val::Result(Ok(result.ok().map(|ty| some(&ty).map(Box::new)).transpose()?)),
        Type::Own(_) => resource()?,
        _ => bail!("a value of this type cannot be nothing"),
    })
}
