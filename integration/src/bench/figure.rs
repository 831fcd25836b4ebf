//! Figures, printed as `cargo xtask bench` reads them: one JSON object a line.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use std::time::Duration;

use serde_json::json;

use super::turns;

/// What a figure is to reach.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// At most this, in the figure's unit.
    AtMost(f64),
    /// At least this, in the figure's unit.
    AtLeast(f64),
    /// At most so many times what it is compared with.
    Times(f64),
    /// At least so many times what it is compared with.
    TimesAtLeast(f64),
    /// At most this many units more than what it is compared with.
    Above(f64),
    /// Nothing: it is there to be seen.
    Nothing,
}

/// Prints a figure of berth's, and what it is compared with: its name and its figure.
///
/// # Panics
///
/// If it is to be compared with nothing.
pub fn row(work: &str, unit: &str, berth: f64, beside: Option<(&str, f64)>, wanted: Wanted) {
    print(work, unit, berth, beside.map(|(name, value)| (name, value, berth / value)), wanted);
}

/// The same of figures that were measured in turn ([`super::orders`]): shown are the middle ones, and compared is turn by turn.
///
/// # Panics
///
/// If there are none.
pub fn row_of_turns(work: &str, unit: &str, berth: &[f64], beside: (&str, &[f64]), wanted: Wanted) {
    let (name, others) = beside;
    let beside = (name, of_hundred(others.to_vec(), 50), turns::times(berth, others));
    print(work, unit, of_hundred(berth.to_vec(), 50), Some(beside), wanted);
}

/// Prints a row; what it stands beside has a name, a figure, and how many times that berth's is.
fn print(work: &str, unit: &str, berth: f64, beside: Option<(&str, f64, f64)>, wanted: Wanted) {
    let other = || beside.map(|(_, value, _)| value).expect("something to compare it with");
    let times = || beside.map(|(_, _, times)| times).expect("something to compare it with");
    let (words, met) = match wanted {
        Wanted::AtMost(most) => (format!("≤ {most} {unit}"), Some(berth <= most)),
        Wanted::AtLeast(least) => (format!("≥ {least} {unit}"), Some(berth >= least)),
        Wanted::Times(most) => (format!("≤ {} ×", rounded(most)), Some(times() <= most)),
        Wanted::TimesAtLeast(least) => (format!("≥ {} ×", rounded(least)), Some(times() >= least)),
        Wanted::Above(most) => (format!("≤ {most} {unit} more"), Some(berth <= other() + most)),
        Wanted::Nothing => (String::new(), None),
    };
    let beside = beside.map(|(name, value, times)| json!({"name": name, "value": value, "times": times}));
    println!(
        "{}",
        json!({"work": work, "unit": unit, "berth": berth, "beside": beside, "wanted": words, "met": met})
    );
}

/// To three digits behind the point.
fn rounded(factor: f64) -> f64 {
    (factor * 1000.0).round() / 1000.0
}

/// The middle one, in milliseconds.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Of a hundred the `percent`th, in milliseconds.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn percentile(times: Vec<Duration>, percent: usize) -> f64 {
    of_hundred(times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect(), percent)
}

/// Of a hundred the `percent`th, of figures that may be below zero.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn of_hundred(mut figures: Vec<f64>, percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}
