//! Loops compiled for the widest instructions of the processor at hand.

/// Runs `work`, which is compiled once for every set of instructions it may meet. What it calls takes part where it is
/// `#[inline(always)]`, as `work` itself has to be.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Work(work))
}

/// No `FnOnce`: a closure that could be called more often is called once through a function of the compiler's, which is not inlined
/// when it is large and so is compiled for the oldest processor there is.
struct Work<F>(F);

impl<R, F: FnMut() -> R> pulp::NullaryFnOnce for Work<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}
