//! Times as the reader's browser writes them, through its own `Intl`.
//!
//! A formatter is costly to make and cheap to use, so each is made once. This file must not know what the
//! times are of.

use js_sys::{Array, Date, Function, Intl, Object, Reflect};
use shared::model::Ms;
use wasm_bindgen::JsValue;

/// Milliseconds of a day, where no clock is changed.
const DAY_MS: Ms = 86_400_000;

thread_local! {
    static CLOCK: Function = formatter(&[("hour", "2-digit"), ("minute", "2-digit")]);
    static SHORT: Function = formatter(&[("dateStyle", "medium"), ("timeStyle", "short")]);
    static FULL: Function = formatter(&[("dateStyle", "full"), ("timeStyle", "medium")]);
    static WEEKDAY: Function = formatter(&[("weekday", "long")]);
    static DATE: Function = formatter(&[("weekday", "long"), ("day", "numeric"), ("month", "long")]);
    static DATE_OF_YEAR: Function = formatter(&[("day", "numeric"), ("month", "long"), ("year", "numeric")]);
}

fn formatter(options: &[(&str, &str)]) -> Function {
    let object = Object::new();
    for (key, value) in options {
        // Setting a property of a plain object does not fail.
        let _ = Reflect::set(&object, &JsValue::from_str(key), &JsValue::from_str(value));
    }
    Intl::DateTimeFormat::new(&Array::new(), &object).format()
}

fn write(formatter: &Function, at: Ms) -> String {
    let written = formatter.call1(&JsValue::UNDEFINED, &JsValue::from_f64(at as f64));
    written.ok().and_then(|text| text.as_string()).unwrap_or_default()
}

fn date(at: Ms) -> Date {
    Date::new(&JsValue::from_f64(at as f64))
}

/// The present time of this browser's clock.
pub fn now() -> Ms {
    Date::now() as Ms
}

/// Hours and minutes.
pub fn clock(at: Ms) -> String {
    CLOCK.with(|formatter| write(formatter, at))
}

/// Date and time.
pub fn short(at: Ms) -> String {
    SHORT.with(|formatter| write(formatter, at))
}

/// Weekday, date and time to the second.
pub fn full(at: Ms) -> String {
    FULL.with(|formatter| write(formatter, at))
}

/// For `<time datetime>`.
pub fn iso(at: Ms) -> String {
    date(at).to_iso_string().into()
}

/// How far the reader's time zone was from UTC at a time: local time is `at` plus this.
pub fn zone_offset(at: Ms) -> Ms {
    -(date(at).get_timezone_offset() as Ms) * 60_000
}

/// The day of a time in the reader's time zone, counted from 1970-01-01.
pub fn day(at: Ms) -> i64 {
    (at + zone_offset(at)).div_euclid(DAY_MS)
}

/// Today, Yesterday, the weekday of the last six days, or the date.
pub fn day_name(at: Ms, today: i64) -> String {
    match today - day(at) {
        0 => "Today".to_owned(),
        1 => "Yesterday".to_owned(),
        2..=6 => WEEKDAY.with(|formatter| write(formatter, at)),
        _ if date(at).get_full_year() == Date::new_0().get_full_year() => {
            DATE.with(|formatter| write(formatter, at))
        }
        _ => DATE_OF_YEAR.with(|formatter| write(formatter, at)),
    }
}
