//! How a search is cut so that it stays within its memory, and how long it will take.

use std::ops::Range;
use std::time::Instant;

use super::blocks::products;
use super::integer_products::{IntegerProducts, IntegerRows, open_share};
use super::ranks::Horizon;
use super::relevance::Relevance;
use super::rows::Rows;
use super::shortlist::Shortlists;
use super::shortlist_ranks::Scratch;
use super::shortlist_search::depths_that_pay;
use super::tally::BYTES_PER_POSITIVE;
use super::undecided::Undecided;
use super::unit_rows::{DEPTH_MULTIPLE, ROW_MULTIPLE};
use super::{EvaluationOptions, SearchDistance};

/// The largest tile: its scores (256 KiB) stay in the second-level cache between product and counting.
const LARGEST: usize = 256;

/// The most rows that wait to be decided (10 MiB, and as much again while they are sorted).
const UNDECIDED: usize = 1 << 19;

/// Rows of one block of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) queries: usize,
    pub(super) gallery: usize,
}

/// The cut of a search.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) tile: Tile,
    /// Whether both sets stand prepared in memory for the whole search.
    pub(super) resident: bool,
    /// Queries searched at a time.
    pub(super) chunks: Vec<Range<usize>>,
    /// Rows of the gallery a worker reads at a time, where it is not resident.
    pub(super) streamed_rows: usize,
    /// How many rows may wait to be decided.
    pub(super) undecided: usize,
    bytes: usize,
}

/// What the rows of a search take, and what that leaves.
#[derive(Clone, Copy, Debug)]
struct Room {
    workers: usize,
    /// Bytes of a prepared row, and of all.
    prepared: usize,
    rows: usize,
    resident: bool,
    /// Bytes for everything else.
    left: usize,
    tile: Tile,
}

impl Room {
    fn new(queries: &dyn Rows, gallery: Option<&dyn Rows>, integers: bool, options: &EvaluationOptions) -> Self {
        let workers = rayon::current_num_threads().max(1);
        let target = gallery.unwrap_or(queries);
        let stride = queries.dim().next_multiple_of(DEPTH_MULTIPLE);
        let prepared = size_of::<f64>()
            + if integers {
                IntegerRows::bytes(stride)
            } else {
                stride * size_of::<f32>() + size_of::<f64>()
            };
        let rows = (queries.len() + gallery.map_or(0, Rows::len)) * prepared;
        let in_memory = queries.in_memory().is_some() && target.in_memory().is_some();
        // A half for the rows, the rest for counts and blocks.
        let resident = in_memory && rows <= options.memory / 4 * 3;
        let left = options.memory.saturating_sub(if resident { rows } else { 0 });
        let side = side(left / 4 / workers);
        let mut tile = Tile {
            queries: side,
            gallery: side,
        };
        // Several tiles per worker, so that small sets use all of them; where the gallery is read, its blocks are many.
        while resident && tile.queries > ROW_MULTIPLE && tile.queries * workers * 4 > queries.len() {
            tile.queries /= 2;
        }
        Self {
            workers,
            prepared,
            rows,
            resident,
            left,
            tile,
        }
    }
}

/// The cut of a search by shortlists.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortlistPlan {
    pub(super) tile: Tile,
    /// Whether queries search each other, each product seen from both sides: their lists are all there at once then.
    pub(super) both_sides: bool,
    bytes: usize,
}

impl ShortlistPlan {
    /// For lists of so many rows; `None` where there is no room for them, or rows have to be read.
    pub(super) fn new(
        queries: &dyn Rows,
        gallery: Option<&dyn Rows>,
        depths: &[u32],
        integers: bool,
        options: &EvaluationOptions,
    ) -> Option<Self> {
        let room = Room::new(queries, gallery, integers, options);
        let tile = room.tile;
        // Queries come in random order: the deepest may come together.
        let deepest = depths.iter().copied().max()? as usize;
        let scores = tile.queries * tile.gallery * size_of::<f32>();
        let ranks = Scratch::bytes(Shortlists::most(deepest));
        let left = room.left.checked_sub(room.workers * (scores + ranks))?;
        let whole = depths.iter().map(|&depth| Shortlists::bytes(depth as usize)).sum();
        let both_sides = gallery.is_none() && whole <= left;
        let parts = room.workers * tile.queries * Shortlists::bytes(deepest);
        let lists = if both_sides { whole } else { parts };
        (room.resident && lists <= left).then_some(Self {
            tile,
            both_sides,
            bytes: room.rows + room.left - left + lists,
        })
    }
}

impl Plan {
    pub(super) fn new(
        queries: &dyn Rows,
        gallery: Option<&dyn Rows>,
        relevance: &Relevance,
        integers: bool,
        options: &EvaluationOptions,
    ) -> Self {
        let Room {
            workers,
            prepared,
            rows,
            resident,
            left,
            tile,
        } = Room::new(queries, gallery, integers, options);
        let (dim, side) = (queries.dim(), tile.gallery);
        let tiles = workers * 3 * side * side * size_of::<f32>();
        let read = dim * size_of::<f32>() + prepared;
        let (for_rows, streamed_rows) = if resident {
            (0, 0)
        } else {
            let each = left / 4 / workers / read;
            (read, multiple(each.min(8192), ROW_MULTIPLE).max(side))
        };
        // While they are sorted they are there twice.
        let undecided = if resident {
            (left / 8 / (2 * size_of::<Undecided>())).min(UNDECIDED)
        } else {
            0
        };
        let reserved =
            tiles + undecided * 2 * size_of::<Undecided>() + workers * streamed_rows * read * usize::from(!resident);
        let chunks = chunks(relevance, left.saturating_sub(reserved), for_rows, tile.queries);
        let largest = chunks
            .iter()
            .map(|rows| cost(relevance, rows.clone(), for_rows))
            .max()
            .unwrap_or(0);
        Self {
            tile,
            resident,
            chunks,
            streamed_rows,
            undecided,
            bytes: if resident { rows } else { 0 } + reserved + largest,
        }
    }
}

/// Whether to screen in integers: where the processor has what they need, and where the comparisons in double precision that their
/// wider bound leaves open do not eat up what they save.
///
/// A comparison costs as much as eight products in single precision, of which integers save half: one in twenty leaves a gain.
pub(super) fn integers(
    dim: usize,
    relevance: &Relevance,
    horizon: Horizon,
    options: &EvaluationOptions,
) -> Option<IntegerProducts> {
    const OPEN: f64 = 0.05;
    if options.distance != SearchDistance::Cosine {
        return None;
    }
    let (queries, gallery) = (relevance.queries(), relevance.gallery());
    // The best item, which is placed however deep it lies, and the others as long as they can be within the horizon; how deep that
    // is is known only after some blocks.
    let compared = (0..queries).map(|query| {
        let items = relevance.known(query).len();
        let deep = horizon.limit(items) as f64 / gallery as f64;
        1.0 + items as f64 * (4.0 * deep).min(1.0)
    });
    let open = compared.sum::<f64>() / queries as f64 * open_share(dim);
    IntegerProducts::detect().filter(|_| open < OPEN)
}

fn multiple(value: usize, of: usize) -> usize {
    (value / of).max(1) * of
}

/// The side of a tile whose scores, three times, fit into `bytes`.
fn side(bytes: usize) -> usize {
    let mut side = LARGEST;
    while side > ROW_MULTIPLE && 3 * side * side * size_of::<f32>() > bytes {
        side /= 2;
    }
    side
}

fn cost(relevance: &Relevance, mut rows: Range<usize>, for_rows: usize) -> usize {
    rows.try_fold(0_usize, |sum, query| {
        sum.checked_add(relevance.known(query).len() * BYTES_PER_POSITIVE + for_rows)
    })
    .unwrap_or(usize::MAX)
}

/// Queries in blocks whose relevant items (and rows) take at most `bytes`, each a multiple of a tile.
fn chunks(relevance: &Relevance, bytes: usize, for_rows: usize, side: usize) -> Vec<Range<usize>> {
    let queries = relevance.queries();
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut size = 0_usize;
    for first in (0..queries).step_by(side) {
        let part = first..(first + side).min(queries);
        let more = cost(relevance, part.clone(), for_rows);
        match chunks.last_mut() {
            Some(last) if size.saturating_add(more) <= bytes => {
                last.end = part.end;
                size += more;
            }
            _ => {
                chunks.push(part);
                size = more;
            }
        }
    }
    chunks
}

/// What a search will cost, said before it starts.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Bytes of rows, counts and blocks.
    pub bytes: usize,
    /// Seconds, from a short measurement of this machine.
    pub seconds: f64,
    /// How often the gallery is read.
    pub passes: usize,
    /// Whether all rows stand in memory, or blocks of them are read.
    pub resident: bool,
    /// Rows of queries and of the gallery in a block of products.
    pub tile: [usize; 2],
    /// Threads.
    pub threads: usize,
}

/// What of the plan of a search is said before it starts.
struct Cut {
    tile: Tile,
    integers: bool,
    both_sides: bool,
    bytes: usize,
    passes: usize,
    resident: bool,
}

impl Cut {
    /// By lists or by counting, as the search itself would choose.
    fn new(queries: &dyn Rows, gallery: Option<&dyn Rows>, relevance: &Relevance, options: &EvaluationOptions) -> Self {
        let horizon = Horizon::RELEVANT.with_best_within(1);
        if let Some(depths) = depths_that_pay(relevance, horizon) {
            let integers = options.distance == SearchDistance::Cosine && IntegerProducts::detect().is_some();
            if let Some(plan) = ShortlistPlan::new(queries, gallery, &depths, integers, options) {
                return Self {
                    tile: plan.tile,
                    integers,
                    both_sides: plan.both_sides,
                    bytes: plan.bytes,
                    passes: 1,
                    resident: true,
                };
            }
        }
        let integers = integers(queries.dim(), relevance, horizon, options).is_some();
        let plan = Plan::new(queries, gallery, relevance, integers, options);
        Self {
            tile: plan.tile,
            integers,
            both_sides: plan.resident && gallery.is_none() && plan.chunks.len() == 1,
            bytes: plan.bytes,
            passes: plan.chunks.len(),
            resident: plan.resident,
        }
    }
}

/// Says what [`rank_positives`](super::rank_positives) will need down to rank R; takes some hundredths of a second.
#[must_use]
pub fn forecast(
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    relevance: &Relevance,
    options: &EvaluationOptions,
) -> Forecast {
    let threads = if options.threads == 0 {
        rayon::current_num_threads()
    } else {
        options.threads
    };
    let cut = Cut::new(queries, gallery, relevance, options);
    let stride = queries.dim().next_multiple_of(DEPTH_MULTIPLE).max(DEPTH_MULTIPLE);
    let Tile {
        queries: height,
        gallery: width,
    } = cut.tile;
    let rows: Vec<f32> = (0..(height + width) * stride).map(|at| (at % 7) as f32 * 0.1).collect();
    let (some, others) = rows.split_at(height * stride);
    let mut scores = Vec::new();
    products(some, others, stride, &mut scores);
    let (begin, mut count) = (Instant::now(), 0_u32);
    while count < 2 || (begin.elapsed().as_secs_f64() < 0.02 && count < 1000) {
        products(some, others, stride, &mut scores);
        count += 1;
    }
    let each = begin.elapsed().as_secs_f64() / f64::from(count) / (height * width) as f64;
    let pairs = queries.len() as f64 * gallery.unwrap_or(queries).len() as f64;
    // Looking at a product takes about as long as 60 columns of it in single precision (measured); integers multiply two numbers where
    // those multiply one.
    let share = if cut.integers { 0.5 } else { 1.0 } + 60.0 / stride as f64;
    Forecast {
        bytes: cut.bytes,
        seconds: pairs * each * share / threads as f64 * if cut.both_sides { 0.5 } else { 1.0 },
        passes: cut.passes,
        resident: cut.resident,
        tile: [height, width],
        threads,
    }
}
