//! Count, mean, minimum, maximum and standard deviation of fields of the payload.
const std = @import("std");
const headwater = @import("headwater.zig");
pub const panic = headwater.panic;
comptime {
    headwater.aggregate(@This());
}

pub const Settings = struct { fields: []const []const u8 };

/// The state: a summary for each field that had a number, in the order of their names.
pub const State = struct { summaries: []Summary = &.{} };

/// `deviations` is the sum of the squared differences from the mean: kept so, it loses no digits
/// where a sum of squares would.
const Summary = struct {
    field: []const u8,
    count: u64 = 0,
    mean: f64 = 0,
    min: f64 = 0,
    max: f64 = 0,
    deviations: f64 = 0,

    /// Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
    fn add(all: *Summary, number: f64) void {
        if (all.count == 0) {
            all.* = .{ .field = all.field, .count = 1, .mean = number, .min = number, .max = number };
            return;
        }
        const before = number - all.mean;
        all.count +|= 1;
        all.mean += before / @as(f64, @floatFromInt(all.count));
        all.deviations += before * (number - all.mean);
        all.min = @min(all.min, number);
        all.max = @max(all.max, number);
    }

    /// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    /// variances", 1979.
    fn join(all: *Summary, other: Summary) void {
        if (all.count == 0) {
            all.* = other;
            return;
        }
        const mine: f64 = @floatFromInt(all.count);
        const theirs: f64 = @floatFromInt(other.count);
        const share = theirs / @as(f64, @floatFromInt(all.count +| other.count));
        const apart = other.mean - all.mean;
        all.deviations += other.deviations + apart * apart * mine * share;
        all.mean += apart * share;
        all.count +|= other.count;
        all.min = @min(all.min, other.min);
        all.max = @max(all.max, other.max);
    }
};

pub fn prepare(settings: *Settings) !void {
    const fields = settings.fields;
    if (fields.len == 0) return headwater.reject("`fields` is empty: name at least one", .{});
    for (fields, 1..) |field, next| for (fields[next..]) |other| {
        if (std.mem.eql(u8, field, other)) return headwater.reject("`fields` has `{s}` twice", .{field});
    };
}

/// A field that is missing or no number is not counted; a sample with none is refused.
pub fn update(settings: Settings, state: *State, sample: headwater.Sample) !void {
    var found = false;
    for (settings.fields) |field| {
        const number = try sample.findNumber(field) orelse continue;
        (try of(state, field)).add(number);
        found = true;
    }
    if (!found) return headwater.reject("no number in any of the fields", .{});
}

pub fn merge(_: Settings, state: *State, other: State) !void {
    for (other.summaries) |summary| (try of(state, summary.field)).join(summary);
}

pub fn finish(_: Settings, _: headwater.Window, state: State, result: *headwater.Result) !void {
    for (state.summaries) |all| try result.write(all.field, .{
        .count = all.count,
        .mean = all.mean,
        .min = all.min,
        .max = all.max,
        .stddev = @sqrt(all.deviations / @as(f64, @floatFromInt(all.count))),
    });
}

/// The field's summary, an empty one if it has none yet.
fn of(state: *State, field: []const u8) !*Summary {
    const summaries = state.summaries;
    const at = for (summaries, 0..) |*known, i| switch (std.mem.order(u8, known.field, field)) {
        .lt => {},
        .eq => return known,
        .gt => break i,
    } else summaries.len;
    const new: Summary = .{ .field = field };
    state.summaries = try std.mem.concat(headwater.memory(), Summary, &.{ summaries[0..at], &.{new}, summaries[at..] });
    return &state.summaries[at];
}
