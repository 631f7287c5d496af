//! A state as bytes: its fields one after the other, little-endian, slices with their length before
//! them. Any bytes that are no state are an error.
const std = @import("std");
const call = @import("call.zig");

/// A new one, all defaults, where there are no bytes yet.
pub fn read(State: type, bytes: []const u8) !State {
    if (bytes.len == 0) return .{};
    var rest = bytes;
    const state = try take(State, &rest);
    return if (rest.len == 0) state else call.reject("the state has {d} bytes too many", .{rest.len});
}

pub fn written(state: anytype) ![]const u8 {
    var bytes: std.ArrayList(u8) = .empty;
    try put(&bytes, state);
    return bytes.items;
}

fn take(Value: type, rest: *[]const u8) !Value {
    switch (@typeInfo(Value)) {
        .int => return std.mem.littleToNative(Value, std.mem.bytesToValue(Value, try cut(rest, @sizeOf(Value)))),
        .float => return @bitCast(try take(@Int(.unsigned, @bitSizeOf(Value)), rest)),
        .bool => return try take(u8, rest) != 0,
        .@"struct" => |info| {
            var value: Value = undefined;
            inline for (info.field_names, info.field_types) |name, Field| @field(value, name) = try take(Field, rest);
            return value;
        },
        .pointer => |info| {
            const count = try take(u32, rest);
            if (info.child == u8) return call.memory().dupe(u8, try cut(rest, count));
            // Each item takes a byte at least, so that no length asks for more memory than the state itself.
            if (count > rest.len) return call.reject("the state is cut off", .{});
            const items = try call.memory().alloc(info.child, count);
            for (items) |*item| item.* = try take(info.child, rest);
            return items;
        },
        else => @compileError("a state cannot have a " ++ @typeName(Value)),
    }
}

fn cut(rest: *[]const u8, size: usize) ![]const u8 {
    if (rest.len < size) return call.reject("the state is cut off", .{});
    defer rest.* = rest.*[size..];
    return rest.*[0..size];
}

fn put(bytes: *std.ArrayList(u8), value: anytype) !void {
    switch (@typeInfo(@TypeOf(value))) {
        .int => try bytes.appendSlice(call.memory(), std.mem.asBytes(&std.mem.nativeToLittle(@TypeOf(value), value))),
        .float => |info| try put(bytes, @as(@Int(.unsigned, info.bits), @bitCast(value))),
        .bool => try bytes.append(call.memory(), @intFromBool(value)),
        .@"struct" => |info| inline for (info.field_names) |name| try put(bytes, @field(value, name)),
        .pointer => |info| {
            try put(bytes, @as(u32, @intCast(value.len)));
            if (info.child == u8) return bytes.appendSlice(call.memory(), value);
            for (value) |item| try put(bytes, item);
        },
        else => @compileError("a state cannot have a " ++ @typeName(@TypeOf(value))),
    }
}
