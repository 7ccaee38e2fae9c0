//! Embeddings as points of the plane: principal components, or a layout that keeps neighbours together.

use rayon::ThreadPoolBuilder;

use crate::EmbeddingSet;
use crate::evaluation::{EvaluationError, EvaluationOptions, UnitRows, nearest};
use crate::projection::{Pca, ProjectionError};
use crate::random::{Rng, purpose, stream};

/// How rows become points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMethod {
    /// The two directions of greatest variance: distances in the plane are those of a shadow, never longer than the true ones.
    PrincipalComponents,
    /// t-SNE (van der Maaten and Hinton 2008; Barnes-Hut form, van der Maaten 2014): near rows become near points; distances
    /// between far groups mean little.
    Neighbours,
}

/// How a map is made.
#[derive(Clone, Debug, PartialEq)]
pub struct MapOptions {
    /// Default: neighbours.
    pub method: MapMethod,
    /// About how many neighbours a point feels (t-SNE's perplexity); default 30, and less in sets of fewer than 91 rows.
    pub perplexity: f32,
    /// Iterations of the layout; default 750.
    pub epochs: usize,
    /// Seed of the tiny displacements that tell equal rows apart; default 0.
    pub seed: u64,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self {
            method: MapMethod::Neighbours,
            perplexity: 30.0,
            epochs: 750,
            seed: 0,
        }
    }
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The rows cannot be used.
    #[error(transparent)]
    Rows(#[from] EvaluationError),
    /// The principal components failed.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The layout could not be computed.
    #[error("the map could not be laid out: {0}")]
    Layout(String),
}

/// Fewest rows that have neighbours worth a layout; fewer are shown along their principal components.
const FEWEST: usize = 8;
/// Accuracy of the approximated repulsion (Barnes-Hut): the usual choice.
const THETA: f32 = 0.5;
/// Spread of the start beside which t-SNE's forces are well scaled (Kobak and Berens 2019).
const START: f32 = 1e-4;

/// Points of the plane for the rows of a set, in their order, inside `-1..=1` on both axes.
///
/// Rows are brought to unit length first, so that distances are those of a search by cosine similarity. The layout starts at the
/// principal components and uses exact neighbours; it runs on one thread, so that the same rows and options give the same points on
/// any machine with the same floating-point arithmetic.
///
/// # Errors
/// Rows that are empty, inconsistent, zero or not finite.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::embedding_map::{MapOptions, embedding_map};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0],
///     labels: vec![0, 0, 1],
///     ids: vec![String::new(); 3],
/// };
/// assert_eq!(embedding_map(&set, &MapOptions::default())?.len(), 3);
/// # Ok::<(), gradus_core::embedding_map::MapError>(())
/// ```
pub fn embedding_map(set: &EmbeddingSet, options: &MapOptions) -> Result<Vec<[f32; 2]>, MapError> {
    let rows = UnitRows::in_given_order(set, "map")?;
    let start = principal(&rows)?;
    if options.method == MapMethod::PrincipalComponents || rows.len() < FEWEST {
        return Ok(fitted(&start));
    }
    let perplexity = options.perplexity.min((rows.len() - 1) as f32 / 3.0).max(1.0);
    let count = (3.0 * perplexity) as usize;
    let found = nearest(set, None, count, &EvaluationOptions::default())?;
    let neighbours: Vec<Vec<bhtsne::Neighbor<f32>>> = (0..rows.len())
        .map(|row| {
            let similarities = &found.similarities[row * found.count..];
            found
                .of(row)
                .iter()
                .zip(similarities)
                .map(|(&index, &similarity)| bhtsne::Neighbor {
                    index: index as usize,
                    distance: (2.0 - 2.0 * similarity).max(0.0).sqrt(),
                })
                .collect()
        })
        .collect();
    let start = displaced(&start, options.seed);
    let units: Vec<()> = vec![(); rows.len()];
    let lay_out = || {
        let mut layout: bhtsne::tSNE<'_, f32, (), 2> = bhtsne::tSNE::new(&units);
        layout
            .perplexity(perplexity)
            .epochs(options.epochs)
            .initial_embedding(start)
            .barnes_hut_with_neighbors(THETA, &neighbours);
        layout.embedding()
    };
    // Sums of several threads are added in the order they finish.
    let pool = ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| MapError::Layout(error.to_string()))?;
    let points = pool.install(lay_out);
    if points.iter().any(|value| !value.is_finite()) {
        return Err(MapError::Layout("its forces did not stay finite".into()));
    }
    Ok(fitted(&pairs(&points)))
}

fn principal(rows: &UnitRows) -> Result<Vec<[f32; 2]>, MapError> {
    let values: Vec<f32> = (0..rows.len())
        .flat_map(|row| rows.row(row)[..rows.dim()].to_vec())
        .collect();
    let components = rows.dim().min(2);
    let pca = Pca::fit(&values, rows.len(), rows.dim(), components)?;
    let projected = pca.transform(&values)?;
    Ok(match components {
        1 => projected.iter().map(|&value| [value, 0.0]).collect(),
        _ => pairs(&projected),
    })
}

fn pairs(values: &[f32]) -> Vec<[f32; 2]> {
    values.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

/// The start of a layout: small, and no two points in one place.
fn displaced(points: &[[f32; 2]], seed: u64) -> Vec<f32> {
    let spread = points.iter().flatten().map(|value| value * value).sum::<f32>() / points.len().max(1) as f32;
    let scale = START / spread.sqrt().max(1e-12);
    let mut random = stream(seed, &[purpose::MAP]);
    points
        .iter()
        .flatten()
        .map(|value| value * scale + random.random_range(-0.01..0.01) * START)
        .collect()
}

/// Points moved and scaled, both axes alike, into `-1..=1`.
fn fitted(points: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let [mut low, mut high] = [[f32::INFINITY; 2], [f32::NEG_INFINITY; 2]];
    for point in points {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let half = (0..2)
        .map(|axis| (high[axis] - low[axis]) / 2.0)
        .fold(0.0, f32::max)
        .max(1e-12);
    let middle = [0, 1].map(|axis| f32::midpoint(low[axis], high[axis]));
    points
        .iter()
        .map(|point| [0, 1].map(|axis| ((point[axis] - middle[axis]) / half).clamp(-1.0, 1.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of rows around random directions.
    fn groups(count: usize, each: usize, dim: usize) -> EmbeddingSet {
        let mut random = stream(5, &[1]);
        let mut set = EmbeddingSet {
            dim,
            ..EmbeddingSet::default()
        };
        for group in 0..count {
            let centre: Vec<f32> = (0..dim).map(|_| random.random_range(-1.0..1.0)).collect();
            for member in 0..each {
                set.values
                    .extend(centre.iter().map(|value| value + random.random_range(-0.4..0.4)));
                set.labels.push(group as u32);
                set.ids.push(format!("{group}/{member}"));
            }
        }
        set
    }

    fn square(a: [f32; 2], b: [f32; 2]) -> f32 {
        (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
    }

    /// Share of points whose nearest point is of their group.
    fn kept(points: &[[f32; 2]], labels: &[u32]) -> f64 {
        let hits = (0..points.len()).filter(|&at| {
            let others = (0..points.len()).filter(|&other| other != at);
            let near = others.min_by(|&a, &b| square(points[at], points[a]).total_cmp(&square(points[at], points[b])));
            near.is_some_and(|near| labels[near] == labels[at])
        });
        hits.count() as f64 / points.len() as f64
    }

    #[test]
    fn groups_stay_together_and_the_layout_is_the_same_every_time() {
        let set = groups(12, 30, 24);
        let options = MapOptions::default();
        let map = embedding_map(&set, &options).unwrap();
        assert!(kept(&map, &set.labels) > 0.99, "{}", kept(&map, &set.labels));
        assert!(map.iter().flatten().all(|value| (-1.0..=1.0).contains(value)));
        assert_eq!(map, embedding_map(&set, &options).unwrap());
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(map, pool.install(|| embedding_map(&set, &options).unwrap()));
        // The shadow of twelve groups in the plane mixes some of them: the layout is worth its time.
        let shadow = MapOptions {
            method: MapMethod::PrincipalComponents,
            ..options
        };
        let shadow = embedding_map(&set, &shadow).unwrap();
        assert!(kept(&shadow, &set.labels) < kept(&map, &set.labels));
    }

    #[test]
    fn few_equal_and_narrow_rows_have_maps_too() {
        for (count, each, dim) in [(1, 1, 3), (1, 7, 3), (2, 5, 1), (3, 4, 2), (1, 40, 5)] {
            let set = groups(count, each, dim);
            let map = embedding_map(&set, &MapOptions::default()).unwrap();
            assert_eq!(map.len(), count * each);
            assert!(map.iter().flatten().all(|value| value.is_finite()));
        }
        let equal = EmbeddingSet {
            dim: 4,
            values: [0.5_f32; 4].repeat(60),
            labels: vec![0; 60],
            ids: vec![String::new(); 60],
        };
        let map = embedding_map(&equal, &MapOptions::default()).unwrap();
        assert!(map.iter().flatten().all(|value| value.is_finite()));
        assert!(embedding_map(&EmbeddingSet::default(), &MapOptions::default()).is_err());
    }
}
