//! JSON payloads, read without building a tree and without recursion: whatever the payload, the
//! memory it takes is a small multiple of its size. What passes is what RFC 8259 says, however deep.
const std = @import("std");
const call = @import("call.zig");
const digits = @import("number.zig");

pub const Member = struct { name: []const u8, value: []const u8 };

pub const Object = struct {
    members: []const Member,

    /// The field's value, as it is written.
    pub fn find(object_: Object, field: []const u8) error{ Missing, Twice }![]const u8 {
        var found: ?[]const u8 = null;
        for (object_.members) |member| {
            if (!std.mem.eql(u8, member.name, field)) continue;
            if (found != null) return error.Twice;
            found = member.value;
        }
        return found orelse error.Missing;
    }
};

// The last payload that was read, which most often is asked again.
var last_payload: []const u8 = "";
var last: Object = undefined;

pub fn forget() void {
    last_payload = "";
}

pub fn object(payload: []const u8) !Object {
    if (payload.len != 0 and payload.ptr == last_payload.ptr and payload.len == last_payload.len) return last;
    if (!std.unicode.utf8ValidateSlice(payload)) return call.reject("not UTF-8", .{});
    var reader: Reader = .{ .text = payload };
    last = reader.object() catch |fault| switch (fault) {
        error.NoJson => return call.reject("not a JSON object: byte {d}", .{reader.at}),
        error.OutOfMemory => |other| return other,
    };
    last_payload = payload;
    return last;
}

fn value_of(payload: []const u8, field: []const u8) ![]const u8 {
    return (try object(payload)).find(field) catch |fault| switch (fault) {
        error.Missing => call.reject("field `{s}` is missing", .{field}),
        error.Twice => call.reject("field `{s}` is there twice", .{field}),
    };
}

pub fn number(payload: []const u8, field: []const u8) !f64 {
    const value = try value_of(payload, field);
    return digits.parse(value) orelse call.reject("field `{s}` is not a number: {s}", .{ field, start(value, 40) });
}

fn start(text_: []const u8, characters: usize) []const u8 {
    var each = std.unicode.Utf8View.initUnchecked(text_).iterator();
    return each.peek(characters);
}

pub fn findNumber(payload: []const u8, field: []const u8) !?f64 {
    return digits.parse((try object(payload)).find(field) catch return null);
}

pub fn text(payload: []const u8, field: []const u8) ![]const u8 {
    const value = try value_of(payload, field);
    if (value[0] == '"') {
        if (unescape(value[1 .. value.len - 1])) |plain| return plain else |fault| {
            if (fault == error.OutOfMemory) return fault;
        }
    }
    return call.reject("field `{s}` is not a text", .{field});
}

pub fn withNumber(payload: []const u8, field: []const u8, value: f64) ![]const u8 {
    const all = try object(payload);
    const old: ?[]const u8 = all.find(field) catch |fault| switch (fault) {
        error.Missing => null,
        error.Twice => return call.reject("field `{s}` is there twice", .{field}),
    };
    if (!std.math.isFinite(value)) {
        const becomes = if (std.math.isNan(value)) "NaN" else if (value < 0) "-inf" else "inf";
        return call.reject("field `{s}` would become {s}", .{ field, becomes });
    }
    var room: [digits.bytes_max]u8 = undefined;
    const written = digits.print(&room, value);
    if (old) |there| {
        const before = @intFromPtr(there.ptr) - @intFromPtr(payload.ptr);
        return std.mem.concat(call.memory(), u8, &.{ payload[0..before], written, payload[before + there.len ..] });
    }
    const end = std.mem.lastIndexOfScalar(u8, payload, '}').?;
    const comma = if (all.members.len == 0) "" else ",";
    var name: Result = .{};
    try name.quote(field);
    return std.mem.concat(call.memory(), u8, &.{ payload[0..end], comma, name.text.items, ":", written, payload[end..] });
}

const Reader = struct {
    text: []const u8,
    at: usize = 0,

    const Fault = error{ NoJson, OutOfMemory };

    fn object(r: *Reader) Fault!Object {
        var members: std.ArrayList(Member) = .empty;
        try r.need('{');
        r.blank();
        var more = !r.take('}');
        while (more) {
            r.blank();
            const name = try r.quoted();
            const plain = if (std.mem.indexOfScalar(u8, name, '\\') == null) name else try unescape(name);
            try r.need(':');
            r.blank();
            const first = r.at;
            try r.value();
            try members.append(call.memory(), .{ .name = plain, .value = r.text[first..r.at] });
            r.blank();
            more = r.take(',');
            if (!more) try r.need('}');
        }
        r.blank();
        return if (r.at == r.text.len) .{ .members = members.items } else error.NoJson;
    }

    fn value(r: *Reader) Fault!void {
        // A bit for each that is open, innermost last, set for an object.
        var open: std.BitStack = .init(call.memory());
        while (true) {
            r.blank();
            var entered = false;
            switch (r.peek()) {
                '{', '[' => |c| {
                    try open.push(@intFromBool(c == '{'));
                    r.at += 1;
                    entered = true;
                },
                '"' => _ = try r.quoted(),
                't' => try r.word("true"),
                'f' => try r.word("false"),
                'n' => try r.word("null"),
                else => try r.number(),
            }
            // Out of all that ends here.
            while (true) : (entered = false) {
                if (open.bit_len == 0) return;
                const in_object = open.peek() == 1;
                r.blank();
                if (r.take(if (in_object) '}' else ']')) {
                    _ = open.pop();
                    continue;
                }
                if (!entered) try r.need(',');
                if (in_object) {
                    r.blank();
                    _ = try r.quoted();
                    try r.need(':');
                }
                break;
            }
        }
    }

    /// 0 at the end, which no JSON begins with.
    fn peek(r: *const Reader) u8 {
        return if (r.at < r.text.len) r.text[r.at] else 0;
    }

    fn take(r: *Reader, c: u8) bool {
        if (r.peek() != c) return false;
        r.at += 1;
        return true;
    }

    fn need(r: *Reader, c: u8) Fault!void {
        r.blank();
        if (!r.take(c)) return error.NoJson;
    }

    fn blank(r: *Reader) void {
        while (switch (r.peek()) {
            ' ', '\n', '\r', '\t' => true,
            else => false,
        }) r.at += 1;
    }

    fn word(r: *Reader, expected: []const u8) Fault!void {
        if (!std.mem.startsWith(u8, r.text[r.at..], expected)) return error.NoJson;
        r.at += expected.len;
    }

    fn number(r: *Reader) Fault!void {
        _ = r.take('-');
        if (!r.take('0')) try r.figures();
        if (r.take('.')) try r.figures();
        if (!r.take('e') and !r.take('E')) return;
        if (!r.take('+')) _ = r.take('-');
        try r.figures();
    }

    fn figures(r: *Reader) Fault!void {
        const first = r.at;
        while (std.ascii.isDigit(r.peek())) r.at += 1;
        if (r.at == first) return error.NoJson;
    }

    /// The text between the quotes, with its escapes.
    fn quoted(r: *Reader) Fault![]const u8 {
        if (!r.take('"')) return error.NoJson;
        const first = r.at;
        while (true) {
            const c = r.peek();
            if (c < 0x20) return error.NoJson;
            r.at += 1;
            if (c == '"') return r.text[first .. r.at - 1];
            if (c != '\\') continue;
            const letter = r.peek();
            if (letter == 0 or std.mem.indexOfScalar(u8, "\"\\/bfnrtu", letter) == null) return error.NoJson;
            r.at += 1;
            if (letter == 'u') for (0..4) |_| {
                if (!std.ascii.isHex(r.peek())) return error.NoJson;
                r.at += 1;
            };
        }
    }
};

/// A checked string without its escapes; an error for half a surrogate pair.
fn unescape(raw: []const u8) Reader.Fault![]const u8 {
    var plain: std.ArrayList(u8) = try .initCapacity(call.memory(), raw.len);
    var at: usize = 0;
    while (at < raw.len) {
        if (raw[at] != '\\') {
            plain.appendAssumeCapacity(raw[at]);
            at += 1;
            continue;
        }
        const letter = raw[at + 1];
        at += 2;
        switch (letter) {
            'b' => plain.appendAssumeCapacity(8),
            'f' => plain.appendAssumeCapacity(12),
            'n' => plain.appendAssumeCapacity('\n'),
            'r' => plain.appendAssumeCapacity('\r'),
            't' => plain.appendAssumeCapacity('\t'),
            'u' => {
                var c: u21 = unit(raw[at..]);
                at += 4;
                if (std.unicode.isSurrogateCodepoint(c)) {
                    if (c >= 0xDC00 or !std.mem.startsWith(u8, raw[at..], "\\u")) return error.NoJson;
                    const low = unit(raw[at + 2 ..]);
                    if (low < 0xDC00 or low > 0xDFFF) return error.NoJson;
                    c = 0x10000 + ((c - 0xD800) << 10 | (low - 0xDC00));
                    at += 6;
                }
                var bytes: [4]u8 = undefined;
                const size = std.unicode.utf8Encode(c, &bytes) catch return error.NoJson;
                plain.appendSliceAssumeCapacity(bytes[0..size]);
            },
            else => plain.appendAssumeCapacity(letter),
        }
    }
    return plain.items;
}

fn unit(raw: []const u8) u21 {
    return std.fmt.parseInt(u16, raw[0..4], 16) catch unreachable;
}

/// The members of a JSON object that is being written.
pub const Result = struct {
    text: std.ArrayList(u8) = .empty,

    pub fn write(result: *Result, name: []const u8, value: anytype) !void {
        try result.put(if (result.text.items.len == 0) "{" else ",");
        try result.quote(name);
        try result.put(":");
        try result.any(value);
    }

    pub fn done(result: *Result) ![]const u8 {
        try result.put(if (result.text.items.len == 0) "{}" else "}");
        return result.text.items;
    }

    fn put(result: *Result, bytes: []const u8) !void {
        try result.text.appendSlice(call.memory(), bytes);
    }

    fn any(result: *Result, value: anytype) !void {
        const Value = @TypeOf(value);
        switch (@typeInfo(Value)) {
            .int, .comptime_int => try result.put(try std.fmt.allocPrint(call.memory(), "{d}", .{value})),
            .float, .comptime_float => {
                var room: [digits.bytes_max]u8 = undefined;
                try result.put(if (std.math.isFinite(value)) digits.print(&room, value) else "null");
            },
            .bool => try result.put(if (value) "true" else "false"),
            .optional => if (value) |some| try result.any(some) else try result.put("null"),
            .@"enum" => try result.quote(@tagName(value)),
            .@"struct" => |info| {
                var inner: Result = .{};
                inline for (info.field_names) |name| try inner.write(name, @field(value, name));
                try result.put(try inner.done());
            },
            .pointer => |info| if (info.child == u8 or @typeInfo(info.child) == .array) {
                try result.quote(value);
            } else {
                try result.put("[");
                for (value, 0..) |item, i| {
                    if (i > 0) try result.put(",");
                    try result.any(item);
                }
                try result.put("]");
            },
            else => @compileError("no JSON for " ++ @typeName(Value)),
        }
    }

    fn quote(result: *Result, plain: []const u8) !void {
        if (!std.unicode.utf8ValidateSlice(plain)) return call.reject("a text of the result is not UTF-8", .{});
        try result.put("\"");
        for (plain) |c| switch (c) {
            '"', '\\' => try result.put(&.{ '\\', c }),
            0...0x1F => try result.put(try std.fmt.allocPrint(call.memory(), "\\u{x:0>4}", .{c})),
            else => try result.put(&.{c}),
        };
        try result.put("\"");
    }
};
