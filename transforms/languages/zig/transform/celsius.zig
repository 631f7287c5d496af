//! A temperature in a field of the payload, to degrees Celsius.
const headwater = @import("headwater.zig");
pub const panic = headwater.panic;
comptime {
    headwater.transform(@This());
}

pub const Settings = struct {
    field: []const u8,
    from: enum { fahrenheit, kelvin, celsius } = .fahrenheit,
    repeat: u8 = 1,
};

pub fn process(settings: Settings, event: *headwater.Event) !void {
    const degrees = try event.number(settings.field);
    try event.setNumber(settings.field, switch (settings.from) {
        .fahrenheit => (degrees - 32) / 1.8,
        .kelvin => degrees - 273.15,
        .celsius => degrees,
    });
    // No event, one or several: here one a second (in microseconds).
    for (0..settings.repeat) |_| {
        try headwater.emit(event.*);
        event.time +|= 1_000_000;
    }
}
