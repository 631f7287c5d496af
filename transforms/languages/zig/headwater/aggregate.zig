//! The calls of the world `aggregate`, as `update`, `merge` and `finish`.
const std = @import("std");
const call = @import("call.zig");
const json = @import("json.zig");
const state = @import("state.zig");
const headwater = @import("../headwater.zig");
const Text = call.Text;

// Records as they lie in memory.
const Sample = extern struct { time: u64, payload: Text };
const Group = extern struct { key: Text, start: u64, end: u64, state: Text, samples: Text };
const Updated = extern struct { state: Text, rejected: Text };
const Closed = extern struct { key: Text, start: u64, end: u64, state: Text, count: u64, late: u64, revision: u32 };

pub fn exported(Module: type) void {
    call.require(Module, &.{ "Settings", "State", "update", "merge", "finish" });
    const State = Module.State;
    const calls = struct {
        var settings: ?Module.Settings = null;

        fn known() !Module.Settings {
            return settings orelse call.reject("called before `init`", .{});
        }

        fn init(config: usize, size: usize) callconv(.c) *const call.Answer {
            const text: Text = .{ .data = config, .size = size };
            settings = call.settings(Module, text.bytes()) catch |fault| return call.failed(fault);
            return call.succeeded(.{}, .{});
        }

        fn update(data: usize, size: usize) callconv(.c) *const call.Answer {
            const groups: Text = .{ .data = data, .size = size };
            return updateAll(groups.items(Group)) catch |fault| call.failed(fault);
        }

        fn updateAll(groups: []const Group) !*const call.Answer {
            const all = try call.memory().alloc(Updated, groups.len);
            for (all, groups) |*updated, group| updated.* = try updateOne(group);
            return call.succeeded(.of(all), .{});
        }

        fn updateOne(group: Group) !Updated {
            var kept = try state.read(State, group.state.bytes());
            const ours = try known();
            var rejections: std.ArrayList(call.Rejection) = .empty;
            for (group.samples.items(Sample), 0..) |sample, index| {
                json.forget();
                Module.update(ours, &kept, .{ .time = sample.time, .payload = sample.payload.bytes() }) catch |fault| {
                    const reason: Text = .of(call.reasonFor(fault));
                    try rejections.append(call.memory(), .{ .index = @intCast(index), .reason = reason });
                };
            }
            return .{ .state = .of(try state.written(kept)), .rejected = .of(rejections.items) };
        }

        fn merge(a: usize, a_size: usize, b: usize, b_size: usize) callconv(.c) *const call.Answer {
            const left: Text = .{ .data = a, .size = a_size };
            const right: Text = .{ .data = b, .size = b_size };
            return mergeBoth(left.bytes(), right.bytes()) catch |fault| call.failed(fault);
        }

        fn mergeBoth(a: []const u8, b: []const u8) !*const call.Answer {
            var kept = try state.read(State, a);
            try Module.merge(try known(), &kept, try state.read(State, b));
            return call.succeeded(.of(try state.written(kept)), .{});
        }

        fn finish(data: usize, size: usize) callconv(.c) *const call.Answer {
            const windows: Text = .{ .data = data, .size = size };
            return finishAll(windows.items(Closed)) catch |fault| call.failed(fault);
        }

        fn finishAll(windows: []const Closed) !*const call.Answer {
            const all = try call.memory().alloc(Text, windows.len);
            for (all, windows) |*text, closed| {
                const window: headwater.Window = .{
                    .key = closed.key.bytes(),
                    .start = closed.start,
                    .end = closed.end,
                    .count = closed.count,
                    .late = closed.late,
                    .revision = closed.revision,
                };
                var result: json.Result = .{};
                try Module.finish(try known(), window, try state.read(State, closed.state.bytes()), &result);
                text.* = .of(try result.done());
            }
            return call.succeeded(.of(all), .{});
        }

        fn after(_: usize) callconv(.c) void {
            call.release();
        }
    };
    for (.{ "init", "update", "merge", "finish" }) |name| {
        @export(&@field(calls, name), .{ .name = name });
        @export(&calls.after, .{ .name = "cabi_post_" ++ name });
    }
}
