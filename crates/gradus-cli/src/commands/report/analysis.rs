//! What a report computes of a run.

use gradus_core::embedding_map::{MapMethod, MapOptions, embedding_map};
use gradus_core::evaluation::{
    Confusions, EvaluationOptions, Neighbors, OrderCurve, PairScores, PerQuery, Subject, UnitRows, confusions, nearest,
    order_curves, pair_scores, per_query, singular_value_shares,
};
use gradus_core::random::{SliceRandom, purpose, stream};

use super::reported_run::ReportedRun;
use crate::failure::Failure;

/// Neighbours that a gallery shows of each query.
pub(super) const SHOWN_NEIGHBOURS: usize = 8;
/// Most points of a map.
const MOST_POINTS: usize = 3000;
/// Stretches of factor distance.
const BINS: usize = 12;

/// Everything the sections show.
pub(super) struct Analysis {
    pub(super) neighbors: Neighbors,
    pub(super) per_query: PerQuery,
    pub(super) confusions: Confusions,
    /// Queries on the maps, rising.
    pub(super) mapped: Vec<usize>,
    /// Points of the mapped queries: neighbours kept together, and principal components.
    pub(super) maps: [Vec<[f32; 2]>; 2],
    pub(super) spectrum: Vec<f64>,
    pub(super) orders: Vec<OrderCurve>,
    pub(super) pairs: PairScores,
}

impl Analysis {
    pub(super) fn new(run: &ReportedRun, seed: u64) -> Result<Self, Failure> {
        let embedded = &run.embedded;
        let options = EvaluationOptions::default();
        let neighbors = nearest(&embedded.queries, embedded.gallery.as_ref(), SHOWN_NEIGHBOURS, &options)?;
        let mut subject = Subject::of_sets(&embedded.queries, embedded.gallery.as_ref());
        subject.factors = embedded.factors.as_ref();
        let found: Vec<Option<u32>> = (0..run.queries())
            .map(|query| neighbors.of(query).first().map(|&item| run.found_class(item as usize)))
            .collect();
        let rows = UnitRows::new(&embedded.queries, "query")?;
        let mapped = sample(run.queries(), MOST_POINTS, seed);
        let set = embedded.queries.select(&mapped);
        let map = |method| {
            embedding_map(
                &set,
                &MapOptions {
                    method,
                    seed,
                    ..MapOptions::default()
                },
            )
        };
        Ok(Self {
            per_query: per_query(&subject, &options)?,
            confusions: confusions(&embedded.queries.labels, &found),
            neighbors,
            maps: [map(MapMethod::Neighbours)?, map(MapMethod::PrincipalComponents)?],
            mapped,
            spectrum: singular_value_shares(&rows)?,
            orders: embedded
                .factors
                .as_ref()
                .map_or_else(Vec::new, |factors| order_curves(&rows, factors, BINS)),
            pairs: pair_scores(&embedded.queries)?,
        })
    }

    /// Mean average precision at R of a query, 0 where it does not count.
    pub(super) fn precision_of(&self, query: usize) -> f64 {
        let column = self.per_query.column("map@r");
        // An empty sum is -0.
        column.and_then(|column| column.values[query]).unwrap_or(0.0) + 0.0
    }
}

/// At most `most` of `count` numbers, drawn with a seed, rising.
pub(super) fn sample(count: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    if count > most {
        all.shuffle(&mut stream(seed, &[purpose::SHOWN]));
        all.truncate(most);
        all.sort_unstable();
    }
    all
}
