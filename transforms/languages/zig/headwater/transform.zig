//! The calls of the world `transform`, as `process` and `emit`.
const std = @import("std");
const call = @import("call.zig");
const json = @import("json.zig");
const Event = @import("../headwater.zig").Event;
const Text = call.Text;

/// An event as it lies in memory.
const Record = extern struct { topic: Text, key: Text, time: u64, payload: Text };

var out: std.ArrayList(Record) = .empty;

pub fn emit(event: Event) !void {
    try out.append(call.memory(), .{
        .topic = .of(event.topic),
        .key = .of(event.key),
        .time = event.time,
        .payload = .of(event.payload),
    });
}

pub fn exported(Module: type) void {
    call.require(Module, &.{ "Settings", "process" });
    const calls = struct {
        var settings: ?Module.Settings = null;

        fn init(config: usize, size: usize) callconv(.c) *const call.Answer {
            const text: Text = .{ .data = config, .size = size };
            settings = call.settings(Module, text.bytes()) catch |fault| return call.failed(fault);
            return call.succeeded(.{}, .{});
        }

        fn process(data: usize, size: usize) callconv(.c) *const call.Answer {
            const events: Text = .{ .data = data, .size = size };
            return all(events.items(Record)) catch |fault| call.failed(fault);
        }

        fn all(events: []const Record) !*const call.Answer {
            const known = settings orelse return call.reject("called before `init`", .{});
            out = try .initCapacity(call.memory(), events.len);
            var rejections: std.ArrayList(call.Rejection) = .empty;
            for (events, 0..) |record, index| {
                var event: Event = .{
                    .topic = record.topic.bytes(),
                    .key = record.key.bytes(),
                    .time = record.time,
                    .payload = record.payload.bytes(),
                };
                const before = out.items.len;
                json.forget();
                Module.process(known, &event) catch |fault| {
                    out.shrinkRetainingCapacity(before);
                    const reason: Text = .of(call.reasonFor(fault));
                    try rejections.append(call.memory(), .{ .index = @intCast(index), .reason = reason });
                };
            }
            return call.succeeded(.of(out.items), .of(rejections.items));
        }

        fn after(_: usize) callconv(.c) void {
            out = .empty;
            call.release();
        }
    };
    @export(&calls.init, .{ .name = "init" });
    @export(&calls.after, .{ .name = "cabi_post_init" });
    @export(&calls.process, .{ .name = "process" });
    @export(&calls.after, .{ .name = "cabi_post_process" });
}
