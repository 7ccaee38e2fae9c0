//! How much the intra-class part weighs in the course of a run.

use serde::{Deserialize, Serialize};

/// The factor on `intra-class.weight` over the share of the run that is done, `p` from 0 to 1; its mean is always 1, so that the
/// intra-class part weighs the same over the whole run.
///
/// ```
/// use gradus::intra_class::WeightSchedule;
/// assert_eq!(WeightSchedule::Rising.factor(0.25), 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightSchedule {
    /// 1.
    #[default]
    Constant,
    /// `2 p`: the base loss settles first.
    Rising,
    /// `2 (1 - p)`: the base loss has the last word.
    Falling,
}

impl WeightSchedule {
    /// The factor where a share `progress` of the run is done.
    #[must_use]
    pub fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Rising => 2.0 * progress,
            Self::Falling => 2.0 * (1.0 - progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_a_run_is_one() {
        for schedule in [
            WeightSchedule::Constant,
            WeightSchedule::Rising,
            WeightSchedule::Falling,
        ] {
            let factors: Vec<f64> = (0..=1000)
                .map(|step| schedule.factor(f64::from(step) / 1000.0))
                .collect();
            let mean = factors.iter().sum::<f64>() / factors.len() as f64;
            assert!((mean - 1.0).abs() < 1e-12, "{schedule:?}: {mean}");
            let rises = factors[1000] - factors[0];
            let expected = match schedule {
                WeightSchedule::Constant => 0.0,
                WeightSchedule::Rising => 2.0,
                WeightSchedule::Falling => -2.0,
            };
            assert!((rises - expected).abs() < 1e-12, "{schedule:?}: {rises}");
        }
    }
}
