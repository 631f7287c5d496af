//! The parts that all calls share, by the canonical ABI of the component model: memory, reasons, settings.
const std = @import("std");
const json = @import("json.zig");

var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
/// Allocates memory that lives as long as the instance.
const kept = std.heap.wasm_allocator;

pub fn memory() std.mem.Allocator {
    return arena.allocator();
}

/// Frees the memory of a call, after each, so that an instance does not grow.
pub fn release() void {
    _ = arena.reset(.{ .retain_with_limit = 1 << 20 });
}

export fn cabi_realloc(old: [*]u8, old_size: usize, alignment: usize, size: usize) [*]u8 {
    std.debug.assert(alignment <= 8);
    // The address of nothing has to be within memory, too, which that of an empty slice is not.
    const new = memory().alignedAlloc(u8, .@"8", @max(size, 1)) catch @panic("out of memory");
    if (old_size != 0) @memcpy(new[0..@min(old_size, size)], old[0..@min(old_size, size)]);
    return new.ptr;
}

/// A string or list, as it lies in memory.
pub const Text = extern struct {
    data: usize = 0,
    size: usize = 0,

    pub fn of(slice: anytype) Text {
        return if (slice.len == 0) .{} else .{ .data = @intFromPtr(slice.ptr), .size = slice.len };
    }

    pub fn items(list: Text, Item: type) []const Item {
        if (list.size == 0) return &.{};
        return @as([*]const Item, @ptrFromInt(list.data))[0..list.size];
    }

    pub fn bytes(list: Text) []const u8 {
        return list.items(u8);
    }
};

pub const Rejection = extern struct { index: u32, reason: Text };
pub const Answer = extern struct { failed: u32 = 0, value: Text = .{}, rejected: Text = .{} };
var answer: Answer = .{};

pub fn succeeded(value: Text, rejected: Text) *const Answer {
    answer = .{ .value = value, .rejected = rejected };
    return &answer;
}

pub fn failed(fault: anyerror) *const Answer {
    answer = .{ .failed = 1, .value = .of(reasonFor(fault)) };
    return &answer;
}

var reason: []const u8 = "";

pub fn reject(comptime format: []const u8, values: anytype) error{Rejected} {
    reason = std.fmt.allocPrint(memory(), format, values) catch "out of memory";
    return error.Rejected;
}

pub fn reasonFor(fault: anyerror) []const u8 {
    return if (fault == error.Rejected) reason else @errorName(fault);
}

pub const Level = enum(u32) { debug, info, warn, @"error" };

const agent_log = @extern(*const fn (u32, [*]const u8, usize) callconv(.c) void, .{
    .name = "log",
    .library_name = "headwater:module/logging@0.1.0",
});

pub fn log(level: Level, comptime format: []const u8, values: anytype) void {
    const line = std.fmt.allocPrint(memory(), format, values) catch "out of memory";
    agent_log(@backingInt(level), line.ptr, line.len);
}

pub fn panicked(message: []const u8, _: ?usize) noreturn {
    agent_log(@backingInt(Level.@"error"), message.ptr, message.len);
    @trap();
}

/// Reads the settings of `Module`, which stay.
pub fn settings(Module: type, config: []const u8) !Module.Settings {
    json.forget();
    var all = try read(Module.Settings, try json.object(try kept.dupe(u8, config)));
    if (@hasDecl(Module, "prepare")) try Module.prepare(&all);
    return all;
}

fn read(Settings: type, object: json.Object) !Settings {
    const info = @typeInfo(Settings).@"struct";
    for (object.members) |member| {
        inline for (info.field_names) |name| {
            if (std.mem.eql(u8, name, member.name)) break;
        } else return reject("unknown setting `{s}`", .{member.name});
    }
    var all: Settings = undefined;
    inline for (info.field_names, info.field_types, info.field_attrs) |name, Type, attributes| {
        if (object.find(name)) |value| {
            if (!fits(Type, value)) return reject("setting `{s}` cannot be {s}", .{ name, value });
            @field(all, name) = std.json.parseFromSliceLeaky(Type, kept, value, .{ .allocate = .alloc_always }) catch
                return reject("setting `{s}` cannot be {s}", .{ name, value });
        } else |fault| {
            if (fault == error.Twice) return reject("setting `{s}` is there twice", .{name});
            @field(all, name) = attributes.defaultValue(Type) orelse
                return reject("setting `{s}` is missing", .{name});
        }
    }
    return all;
}

/// Returns false for values of another type: std.json would take numbers as names of an enum, texts as numbers and lists of numbers as texts.
fn fits(Type: type, value: []const u8) bool {
    return switch (@typeInfo(Type)) {
        .int, .float => value[0] == '-' or std.ascii.isDigit(value[0]),
        .@"enum" => value[0] == '"' and !std.ascii.isDigit(value[1]) and value[1] != '-',
        .optional => |info| value[0] == 'n' or fits(info.child, value),
        .pointer => |info| value[0] == @as(u8, if (info.child == u8) '"' else '['),
        else => true,
    };
}

/// Ends the compilation with an error in words where `Module` lacks something.
pub fn require(Module: type, comptime names: []const []const u8) void {
    inline for (names) |name| {
        if (!@hasDecl(Module, name)) @compileError("the module has no `pub` declaration `" ++ name ++ "`: see headwater.zig");
    }
}
