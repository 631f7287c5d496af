// Numbers to and from text, exactly: the double nearest to the digits, and the shortest digits that
// read back as the same double.
#include "own.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Clinger, "How to read floating point numbers accurately", 1990: exact where both parts are.
double number_of(Text value) {
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (value.data[0] != '-' && (value.data[0] < '0' || value.data[0] > '9')) return NAN;
    const char *at = value.data, *end = at + value.size;
    bool negative = *at == '-';
    uint64_t digits = 0;
    int exponent = 0;
    bool point = false;
    for (at += negative; at < end && digits < (uint64_t)1 << 53; at++) {
        if (*at == '.') {
            point = true;
        } else if (*at >= '0' && *at <= '9') {
            digits = digits * 10 + (uint64_t)(*at - '0');
            exponent -= point;
        } else {
            break;
        }
    }
    if (at == end && digits <= (uint64_t)1 << 53 && exponent >= -22) {
        double number = (double)digits / powers[-exponent];
        return negative ? -number : number;
    }
    return strtod(value.data, NULL);  // Stops where the JSON's number ends.
}

// Steele and White, "How to print floating-point numbers accurately", 1990, in 128 bits: the
// shortest digits that read back as the same number, and the exponent of the first. For numbers
// from 2^-60 to 2^62, others take longer.
static int shortest_near_one(double number, char *out, int *exponent) {
    typedef unsigned __int128 wide;
    int power;
    uint64_t mantissa = (uint64_t)ldexp(frexp(number, &power), 53);
    power -= 53;
    bool even = mantissa % 2 == 0, edge = mantissa == (uint64_t)1 << 52;
    wide unit = (wide)1 << (power > 0 ? power : 0);
    wide rest = mantissa * unit * (edge ? 4 : 2), below = unit, above = edge ? unit * 2 : unit;
    wide scale = (wide)(edge ? 4 : 2) << (power < 0 ? -power : 0);
    int first = 0;
    for (; even ? rest + above >= scale : rest + above > scale; first++) scale *= 10;
    for (; even ? (rest + above) * 10 < scale : (rest + above) * 10 <= scale; first--) {
        rest *= 10, below *= 10, above *= 10;
    }
    *exponent = first - 1;
    for (int size = 0;;) {
        rest *= 10, below *= 10, above *= 10;
        int digit = 0;
        for (; rest >= scale; rest -= scale) digit++;
        bool low = even ? rest <= below : rest < below;
        bool high = even ? rest + above >= scale : rest + above > scale;
        // The nearer of the two where both would do, the even one at the same distance.
        bool up = rest * 2 > scale || (rest * 2 == scale && digit % 2 == 1);
        if (high && (!low || up)) digit++;
        out[size++] = (char)('0' + digit);
        if (low || high) return size;
    }
}

static int shortest(double number, char *out, int *exponent) {
    if (number >= 0x1p-60 && number < 0x1p62) return shortest_near_one(number, out, exponent);
    char line[32];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(line, sizeof line, "%.*e", precision, number);
        if (precision == 16 || strtod(line, NULL) == number) break;
    }
    int size = 0;
    const char *at = line;
    for (; *at != 'e'; at++) {
        if (*at != '.') out[size++] = *at;
    }
    *exponent = atoi(at + 1);
    return size;
}

// Writes a number as serde_json does, so that results are the same bytes in every language.
Text number_text(double number) {
    if (!isfinite(number)) return text("null");
    char *out = allocate(40), *to = out, figures[20];
    if (signbit(number)) *to++ = '-';
    if (number == 0) return memcpy(to, "0.0", 3), (Text){out, (size_t)(to + 3 - out)};
    int exponent, size = shortest(fabs(number), figures, &exponent);
    if (exponent >= 16 || exponent < -5) {
        *to++ = figures[0];
        if (size > 1) *to++ = '.';
        memcpy(to, figures + 1, (size_t)size - 1);
        to += size - 1;
        to += sprintf(to, "e%+d", exponent);
        return (Text){out, (size_t)(to - out)};
    }
    if (exponent < 0) *to++ = '0', *to++ = '.';
    for (int i = -1; i > exponent; i--) *to++ = '0';
    for (int i = 0; i < size || i <= exponent; i++) {
        *to++ = i < size ? figures[i] : '0';
        if (i == exponent) {
            *to++ = '.';
            if (i >= size - 1) *to++ = '0';
        }
    }
    return (Text){out, (size_t)(to - out)};
}
