//! A loss with its slopes, for those who bring their own arrays: the command line and the Python package.

use super::{Loss, LossConfig};
use crate::batch::Comparison;
use crate::tensor::{Gradients, Tensor};
use gradus_core::relations::Labels;

/// Most classes that labels may ask proxies for: proxies of absent classes cost memory, so that labels of millions are a
/// mistake, not a wish.
const MANY_CLASSES: usize = 1 << 22;

/// What a loss is worth on the host, and the slopes at its leaves.
#[allow(missing_debug_implementations, reason = "Burn's gradients have none")]
pub struct Differentiated {
    /// The loss.
    pub value: f64,
    /// Its reduced terms by name.
    pub terms: Vec<(&'static str, f64)>,
    /// The slopes, to be asked for each leaf ([`gradient`](Self::gradient)).
    pub gradients: Gradients,
}

impl Differentiated {
    /// The gradient at a tracked leaf; `None` where the loss does not depend on it, which is a gradient of 0.
    #[must_use]
    pub fn gradient(&self, leaf: &Tensor<2>) -> Option<Tensor<2>> {
        leaf.grad(&self.gradients)
    }
}

/// The message for a value that is no number.
#[must_use]
pub fn not_finite(what: &str, value: f64) -> String {
    format!("{what} is {value}: the embeddings or settings are beyond what this precision can hold")
}

impl Loss {
    /// The loss, its terms and its slopes, after [`check`](Self::check).
    ///
    /// # Errors
    /// What `check` refuses, a value that is not finite, a device that cannot be read.
    ///
    /// # Panics
    /// If the loss [does not reduce](Self::reduces).
    pub fn differentiate(&self, comparison: &Comparison) -> Result<Differentiated, String> {
        self.check(comparison)?;
        let evaluation = self.evaluate(comparison);
        let value = number(&evaluation.value)?;
        let terms = evaluation.terms.iter().map(|(name, term)| Ok((*name, number(term)?)));
        Ok(Differentiated {
            value,
            terms: terms.collect::<Result<_, String>>()?,
            gradients: evaluation.value.backward(),
        })
    }
}

impl LossConfig {
    /// Number of classes that labels ask for: one more than the largest.
    ///
    /// # Errors
    /// More than 2^22 where every class needs proxies.
    pub fn class_count(&self, labels: &Labels) -> Result<usize, String> {
        let largest = labels.classes().and_then(|classes| classes.iter().max());
        let count = largest.map_or(0, |&largest| largest as usize + 1);
        if self.proxies_per_class().is_some() && count > MANY_CLASSES {
            return Err(format!(
                "the largest label is {}, so {count} classes would need proxies: number the classes from 0 without gaps",
                count - 1
            ));
        }
        Ok(count)
    }
}

fn number(value: &Tensor<1>) -> Result<f64, String> {
    let value: f64 = value
        .clone()
        .try_into_scalar()
        .map_err(|error| format!("the loss cannot be read from the device: {error}"))?;
    if value.is_finite() {
        // No minus 0, which is what 0 times a negative sum is.
        return Ok(value + 0.0);
    }
    Err(not_finite("the loss", value))
}
