//! How learning rates change over a run: a pure function of the epoch, so that nothing has to be saved.

use serde::{Deserialize, Serialize};

/// How the rates fall from their start; section `[optimizer.decay]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Not at all.
    Constant,
    /// By a factor every so many epochs (Proxy-Anchor: 0.5 every 10).
    Step {
        /// Epochs between two falls.
        every: usize,
        /// What the rate is multiplied with.
        factor: f64,
    },
    /// Along half a cosine to a share of the start at the end of the run, step by step.
    Cosine {
        /// Share of the start that is left at the end.
        end: f64,
    },
}

impl Default for Decay {
    fn default() -> Self {
        Self::Step { every: 10, factor: 0.5 }
    }
}

impl Decay {
    /// Factor on every rate at a point of the run: `epoch` from 0, `progress` the share of all steps already done.
    ///
    /// ```
    /// use gradus::train::schedule::Decay;
    /// let step = Decay::Step { every: 10, factor: 0.5 };
    /// assert_eq!((step.factor(9, 0.0), step.factor(10, 0.0), step.factor(25, 0.0)), (1.0, 0.5, 0.25));
    /// assert!(Decay::Cosine { end: 0.0 }.factor(0, 1.0).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn factor(&self, epoch: usize, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Step { every, factor } => {
                let falls = i32::try_from(epoch / every).unwrap_or(i32::MAX);
                factor.powi(falls)
            }
            Self::Cosine { end } => {
                let half = 0.5 * (1.0 + (std::f64::consts::PI * progress.clamp(0.0, 1.0)).cos());
                end + (1.0 - end) * half
            }
        }
    }

    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// One sentence naming the key.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Self::Constant => Ok(()),
            Self::Step { every: 0, .. } => Err("optimizer.decay.step.every = 0: expected at least 1 epoch".to_owned()),
            Self::Step { factor, .. } if !(0.0..=1.0).contains(factor) => Err(format!(
                "optimizer.decay.step.factor = {factor}: expected a number between 0 and 1"
            )),
            Self::Cosine { end } if !(0.0..=1.0).contains(end) => Err(format!(
                "optimizer.decay.cosine.end = {end}: expected a number between 0 and 1"
            )),
            Self::Step { .. } | Self::Cosine { .. } => Ok(()),
        }
    }
}
