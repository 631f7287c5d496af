//! The SDK for Headwater modules in Zig: `transform` or `aggregate`, once, at `comptime`.
//!
//! The module has `pub const Settings`, a struct that the step's `settings` fills: unknown names and
//! missing ones without a default are faults of the configuration; `pub fn prepare(*Settings) !void`
//! may check more. An error rejects the event or sample at hand alone: `return reject(…)` says why
//! in words. Memory from `memory()` lives until the end of the call, so nothing is freed. Times are
//! microseconds since the Unix epoch, UTC.
const std = @import("std");
const call = @import("headwater/call.zig");
const json = @import("headwater/json.zig");

/// A transform has `pub fn process(Settings, *Event) !void`, which hands events on with `emit`.
pub const transform = @import("headwater/transform.zig").exported;

/// An aggregate has `pub const State`: a struct of numbers, texts, slices and structs of them, all
/// with defaults, which the agent keeps; and `pub fn update(Settings, *State, Sample) !void`,
/// `merge(Settings, *State, State) !void`, `finish(Settings, Window, State, *Result) !void`.
/// An `update` that fails leaves the state as it was.
pub const aggregate = @import("headwater/aggregate.zig").exported;

pub const Event = struct {
    /// The MQTT topic it came from.
    topic: []const u8,
    /// The key that it belongs to: order, windows and state are kept per key.
    key: []const u8,
    /// The event time.
    time: u64,
    /// The content: JSON, unless the pipeline says otherwise.
    payload: []const u8,

    /// Returns the number in a field of the payload; an error where it is missing, there twice or not finite.
    pub fn number(event: Event, field: []const u8) !f64 {
        return json.number(event.payload, field);
    }

    /// Returns the text in a field of the payload.
    pub fn text(event: Event, field: []const u8) ![]const u8 {
        return json.text(event.payload, field);
    }

    /// Sets the number in a field, which is added if it is not there; the rest of the payload stays as it is, byte for
    /// byte. An error where the field is there twice or the number is not finite.
    pub fn setNumber(event: *Event, field: []const u8, value: f64) !void {
        event.payload = try json.withNumber(event.payload, field, value);
    }
};

pub const Sample = struct {
    time: u64,
    payload: []const u8,

    /// Returns the number in a field of the payload; an error where it is missing, there twice or not finite.
    pub fn number(sample: Sample, field: []const u8) !f64 {
        return json.number(sample.payload, field);
    }

    /// Returns null where the field is missing or no number; an error only for a payload that is no object.
    pub fn findNumber(sample: Sample, field: []const u8) !?f64 {
        return json.findNumber(sample.payload, field);
    }

    /// Returns the text in a field of the payload.
    pub fn text(sample: Sample, field: []const u8) ![]const u8 {
        return json.text(sample.payload, field);
    }
};

/// A closed window, half open: `start` belongs to it, `end` does not.
pub const Window = struct {
    key: []const u8,
    start: u64,
    end: u64,
    /// The number of samples used.
    count: u64,
    /// The number of samples among them that came after it had first closed.
    late: u64,
    /// 0 the first time, then one more each time late samples change the result.
    revision: u32,
};

/// A result's members: `result.write("mean", 1.5)`; a struct becomes an object.
pub const Result = json.Result;

/// Hands an event on. `process` calls it once to pass the event on, not at all to drop it, several times to split it;
/// what is emitted is as it is then. An event that is rejected gives nothing, whatever it emitted before.
pub const emit = @import("headwater/transform.zig").emit;

/// The error to return for an event, a sample or settings that cannot be used, with the reason.
pub const reject = call.reject;

/// Returns an allocator whose memory lives until the end of the call.
pub const memory = call.memory;

/// Writes a line in the agent's log.
pub const log = call.log;

/// `pub const panic = headwater.panic;` in the module's file: its message then reaches the log and
/// the dead letters.
pub const panic = std.debug.FullPanic(call.panicked);
