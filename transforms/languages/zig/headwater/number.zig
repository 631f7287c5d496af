//! Numbers to and from text, exactly: the double nearest to the digits, and the shortest digits that
//! read back as the same double.
const std = @import("std");

/// More than the longest number takes: -1.7976931348623157e+308.
pub const bytes_max = 64;

/// Null for JSON that is no number, and for one that no double holds.
pub fn parse(value: []const u8) ?f64 {
    if (value[0] != '-' and !std.ascii.isDigit(value[0])) return null;
    const number = std.fmt.parseFloat(f64, value) catch return null;
    return if (std.math.isFinite(number)) number else null;
}

/// Writes a number as serde_json does, so that results are the same bytes in every language.
pub fn print(room: *[bytes_max]u8, number: f64) []const u8 {
    var scratch: [std.fmt.float.min_buffer_size]u8 = undefined;
    const scientific = std.fmt.float.render(&scratch, @abs(number), .{}) catch unreachable;
    const e = std.mem.indexOfScalar(u8, scientific, 'e').?;
    const exponent = std.fmt.parseInt(i32, scientific[e + 1 ..], 10) catch unreachable;
    // "1.25" becomes "125", in place: the first digit takes that of the point.
    if (e > 1) scratch[1] = scratch[0];
    const figures = scratch[@intFromBool(e > 1)..e];

    var out: std.Io.Writer = .fixed(room);
    write(&out, std.math.signbit(number), figures, exponent) catch unreachable;
    return out.buffered();
}

fn write(out: *std.Io.Writer, negative: bool, figures: []const u8, exponent: i32) !void {
    if (negative) try out.writeByte('-');
    if (exponent >= 16 or exponent < -5) {
        try out.writeByte(figures[0]);
        if (figures.len > 1) try out.print(".{s}", .{figures[1..]});
        return out.print("e{s}{d}", .{ if (exponent > 0) "+" else "", exponent });
    }
    if (exponent < 0) {
        try out.writeAll("0.");
        try out.splatByteAll('0', @intCast(-1 - exponent));
        return out.writeAll(figures);
    }
    const whole: usize = @intCast(exponent + 1);
    try out.writeAll(figures[0..@min(whole, figures.len)]);
    try out.splatByteAll('0', whole -| figures.len);
    try out.writeByte('.');
    try out.writeAll(if (figures.len > whole) figures[whole..] else "0");
}
