//! (to be written)
/// placeholder
#[derive(Debug)] pub struct Split;
/// placeholder
#[derive(Debug)] pub struct SplitOptions;
/// placeholder
#[derive(Debug)] pub struct ClassSelection;
