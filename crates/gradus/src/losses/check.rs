//! Checks of the settings of losses, with messages that name the setting.

/// Refuses a value that is not finite.
pub(super) fn finite(loss: &str, setting: &str, value: f64, default: f64) -> Result<(), String> {
    expect(value.is_finite(), loss, setting, value, default, "a finite number")
}

/// Refuses a value that is not finite and above 0.
pub(super) fn above_zero(loss: &str, setting: &str, value: f64, default: f64) -> Result<(), String> {
    expect(
        value.is_finite() && value > 0.0,
        loss,
        setting,
        value,
        default,
        "a finite number above 0",
    )
}

/// Refuses a value that is not finite and at least 0.
pub(super) fn not_negative(loss: &str, setting: &str, value: f64, default: f64) -> Result<(), String> {
    expect(
        value.is_finite() && value >= 0.0,
        loss,
        setting,
        value,
        default,
        "a finite number of at least 0",
    )
}

/// Refuses a value outside `[low, high)`.
pub(super) fn within(loss: &str, setting: &str, value: f64, default: f64, [low, high]: [f64; 2]) -> Result<(), String> {
    let wanted = format!("at least {low} and below {high}");
    expect(value >= low && value < high, loss, setting, value, default, &wanted)
}

fn expect(holds: bool, loss: &str, setting: &str, value: f64, default: f64, wanted: &str) -> Result<(), String> {
    if holds {
        return Ok(());
    }
    Err(format!(
        "loss.{loss}.{setting} is {value}, but it must be {wanted}; leave it out to get the default {default}."
    ))
}

/// Refuses a number of things that is 0.
pub(super) fn count(loss: &str, setting: &str, value: usize, default: usize) -> Result<(), String> {
    if value > 0 {
        return Ok(());
    }
    Err(format!(
        "loss.{loss}.{setting} is {value}, but it must be at least 1; leave it out to get the default {default}."
    ))
}

/// Refuses weights that are not finite, or not one for each thing to weigh; no weights at all stand for 1.
pub(super) fn weights(loss: &str, weights: &[f64], count: usize, of: &str) -> Result<(), String> {
    if !weights.is_empty() && weights.len() != count {
        return Err(format!(
            "loss.{loss}.weights holds {} numbers, but there are {count} {of}; give one for each, or leave it out for 1.",
            weights.len()
        ));
    }
    match weights.iter().find(|weight| !weight.is_finite()) {
        Some(weight) => Err(format!(
            "loss.{loss}.weights holds {weight}, but it must hold finite numbers."
        )),
        None => Ok(()),
    }
}
