//! All measures: one line each says what a measure needs and which function computes it.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};
use super::subject::Whole;
use super::{
    EvaluationError, alignment_uniformity, average_precision, cluster_measures, cmc, collapse, density, level_order,
    map_at_r, ndcg, near_and_far, order_preservation, precision, r_precision, recall_at_k, reciprocal_rank,
    spectral_decay, structure_measures, verification_measures,
};

/// Named numbers; `None` where the data do not define one.
pub(super) type Numbers = Vec<(String, Option<f64>)>;

/// How a measure is computed.
#[derive(Clone, Copy)]
pub(super) enum Compute {
    /// The mean over queries of a number that follows from where the relevant items stand.
    Query {
        horizon: fn(usize) -> Horizon,
        value: fn(&RankedQuery<'_>, usize) -> f64,
    },
    /// A number (or one for each factor) of the set as a whole.
    Whole {
        needs: &'static [Need],
        value: fn(&Whole<'_>) -> Result<Numbers, EvaluationError>,
    },
    /// Only known inside training; listed, never asked for.
    Training,
}

/// What a measure of the whole set cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// One class per row, and all rows in memory.
    Classes,
    /// Known factors of every query.
    Factors,
    /// The same rows in a space to compare with.
    Reference,
    /// A coarser group of every query.
    Categories,
}

/// A measure and how it comes about.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) measure: Measure,
    pub(super) compute: Compute,
    /// Whether training and `gradus quickstart` report it.
    pub(super) in_runs: bool,
    /// Whether a larger value is the better one; of many measures of structure neither is.
    pub(super) larger_is_better: bool,
}

const fn query(measure: Measure, horizon: fn(usize) -> Horizon, value: fn(&RankedQuery<'_>, usize) -> f64) -> Entry {
    Entry {
        measure,
        compute: Compute::Query { horizon, value },
        in_runs: false,
        larger_is_better: true,
    }
}

const fn whole(
    measure: Measure,
    needs: &'static [Need],
    value: fn(&Whole<'_>) -> Result<Numbers, EvaluationError>,
) -> Entry {
    Entry {
        measure,
        compute: Compute::Whole { needs, value },
        in_runs: false,
        larger_is_better: false,
    }
}

const fn training(measure: Measure) -> Entry {
    Entry {
        measure,
        compute: Compute::Training,
        in_runs: false,
        larger_is_better: false,
    }
}

/// The same, reported by every run.
const fn run(mut entry: Entry) -> Entry {
    entry.in_runs = true;
    entry
}

/// The same, of which more is better.
const fn larger(mut entry: Entry) -> Entry {
    entry.larger_is_better = true;
    entry
}

use Need::{Categories, Classes, Factors, Reference};

/// All measures, in the order of the results.
pub(super) const REGISTRY: &[Entry] = &[
    run(query(recall_at_k::MEASURE, recall_at_k::horizon, recall_at_k::of_query)),
    query(precision::MEASURE, precision::horizon, precision::of_query),
    run(query(map_at_r::MEASURE, map_at_r::horizon, map_at_r::of_query)),
    run(query(r_precision::MEASURE, r_precision::horizon, r_precision::of_query)),
    query(
        average_precision::MEASURE,
        average_precision::whole,
        average_precision::of_query,
    ),
    query(
        average_precision::AT_K,
        average_precision::within,
        average_precision::of_query_at_k,
    ),
    query(
        average_precision::HITS_AT_K,
        average_precision::within,
        average_precision::of_query_by_hits,
    ),
    query(
        reciprocal_rank::MEASURE,
        reciprocal_rank::horizon,
        reciprocal_rank::of_query,
    ),
    query(ndcg::MEASURE, ndcg::horizon, ndcg::of_query),
    query(cmc::MEASURE, cmc::horizon, cmc::of_query),
    run(whole(density::MEASURE, &[Classes], |set| {
        Ok(vec![("density".into(), density::density(set.rows()?).ratio)])
    })),
    run(whole(spectral_decay::RHO, &[Classes], |set| {
        set.spectrum(|spectrum| ("rho", spectrum.rho))
    })),
    run(whole(spectral_decay::RHO_INTRA, &[Classes], |set| {
        Ok(vec![("rho_intra".into(), spectral_decay::rho_intra(set.rows()?)?)])
    })),
    run(whole(spectral_decay::EFFECTIVE_RANK, &[Classes], |set| {
        set.spectrum(|spectrum| ("effective_rank", spectrum.effective_rank))
    })),
    run(larger(whole(order_preservation::MEASURE, &[Classes, Factors], |set| {
        set.order(|order| vec![("order_preservation".into(), order.spearman)])
    }))),
    run(larger(whole(order_preservation::KENDALL, &[Classes, Factors], |set| {
        set.order(|order| vec![("order_preservation_kendall".into(), order.kendall)])
    }))),
    run(larger(whole(
        order_preservation::PER_FACTOR,
        &[Classes, Factors],
        |set| {
            let of = |factor: &super::FactorOrder| (format!("order_preservation.{}", factor.name), factor.spearman);
            set.order(|order| order.factors.iter().map(of).collect())
        },
    ))),
    run(larger(whole(
        order_preservation::COMBINED,
        &[Classes, Factors],
        |set| set.order(|order| vec![("order_preservation_combined".into(), order.combined.spearman)]),
    ))),
    whole(order_preservation::SPEARMAN, &[Classes, Factors], |set| {
        set.order(|order| vec![("order_spearman".into(), order.spearman)])
    }),
    whole(order_preservation::KENDALL_TAU, &[Classes, Factors], |set| {
        set.order(|order| vec![("order_kendall".into(), order.kendall)])
    }),
    larger(whole(near_and_far::ORDER_NEAR, &[Classes, Factors], |set| {
        Ok(set.near_and_far()?[0].clone())
    })),
    larger(whole(near_and_far::RECALL_FAR, &[Classes, Factors], |set| {
        Ok(set.near_and_far()?[1].clone())
    })),
    whole(cluster_measures::NMI, &[Classes], |set| {
        set.clusters(|scores| ("nmi", scores.nmi))
    }),
    whole(cluster_measures::AMI, &[Classes], |set| {
        set.clusters(|scores| ("ami", scores.ami))
    }),
    whole(cluster_measures::F1, &[Classes], |set| {
        set.clusters(|scores| ("f1", scores.f1))
    }),
    whole(verification_measures::AUC, &[Classes], |set| {
        set.verification("auc", |curve| curve.auc)
    }),
    whole(verification_measures::EER, &[Classes], |set| {
        set.verification("eer", |curve| curve.eer)
    }),
    whole(verification_measures::TAR, &[Classes], |set| {
        set.rates("tar@far", |curve| curve.tar_at_far.clone())
    }),
    whole(verification_measures::FNMR, &[Classes], |set| {
        set.rates("fnmr@fmr", |curve| curve.fnmr_at_fmr())
    }),
    whole(structure_measures::NC1, &[Classes], |set| {
        Ok(vec![("nc1".into(), collapse::collapse(set.rows()?)?)])
    }),
    whole(structure_measures::ALIGNMENT, &[Classes], |set| {
        Ok(vec![("alignment".into(), alignment_uniformity::alignment(set.rows()?))])
    }),
    whole(structure_measures::UNIFORMITY, &[Classes], |set| {
        Ok(vec![(
            "uniformity".into(),
            alignment_uniformity::uniformity(set.rows()?),
        )])
    }),
    whole(structure_measures::KNN_OVERLAP, &[Classes, Reference], |set| {
        set.reference(|kept| vec![("knn_overlap".into(), kept.knn_overlap)])
    }),
    whole(structure_measures::REFERENCE_SPEARMAN, &[Classes, Reference], |set| {
        set.reference(|kept| vec![("reference_spearman".into(), kept.spearman)])
    }),
    whole(structure_measures::LINEAR_CKA, &[Classes, Reference], |set| {
        set.reference(|kept| vec![("linear_cka".into(), kept.linear_cka)])
    }),
    whole(structure_measures::SUBCLASS_RECALL, &[Classes, Categories], |set| {
        set.subclasses("subclass_recall", |transfer| transfer.recall_at_1)
    }),
    whole(
        structure_measures::SUBCLASS_R_PRECISION,
        &[Classes, Categories],
        |set| set.subclasses("subclass_r_precision", |transfer| transfer.r_precision),
    ),
    training(level_order::MISORDERED),
    training(level_order::MEETING_MARGIN),
];

/// A measure that was asked for, with its K.
#[derive(Clone)]
pub(super) struct Asked {
    /// Its key in the results; `None` where the measure names its numbers itself.
    pub(super) key: String,
    pub(super) entry: Entry,
    pub(super) k: usize,
}

/// The measures a list of names asks for: `recall@5`, `map@r`, or a family such as `recall` at all `levels`.
///
/// # Errors
/// A name of no measure, with the nearest ones; a level of 0.
pub(super) fn asked(names: &[String], levels: &[usize]) -> Result<Vec<Asked>, EvaluationError> {
    let mut all: Vec<Asked> = Vec::new();
    for name in names {
        for one in find(name, levels)? {
            if !all.iter().any(|other| other.key == one.key) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

/// Every measure at all `levels`, or only those of runs.
pub(super) fn every(levels: &[usize], in_runs: bool) -> Result<Vec<Asked>, EvaluationError> {
    let mut all = Vec::new();
    for entry in REGISTRY.iter().filter(|entry| entry.in_runs || !in_runs) {
        if !matches!(entry.compute, Compute::Training) {
            all.extend(expand(entry, levels)?);
        }
    }
    Ok(all)
}

fn expand(entry: &Entry, levels: &[usize]) -> Result<Vec<Asked>, EvaluationError> {
    let name = entry.measure.name;
    let Some(family) = name.strip_suffix("@K") else {
        return Ok(vec![Asked {
            key: name.into(),
            entry: *entry,
            k: 0,
        }]);
    };
    levels
        .iter()
        .map(|&k| {
            if k == 0 {
                return Err(EvaluationError::Options(format!(
                    "{family}@0 looks at nothing: give levels of 1 and more in recall-levels (or --k)"
                )));
            }
            Ok(Asked {
                key: format!("{family}@{k}"),
                entry: *entry,
                k,
            })
        })
        .collect()
}

fn find(name: &str, levels: &[usize]) -> Result<Vec<Asked>, EvaluationError> {
    let by_name = |name: &str| REGISTRY.iter().find(|entry| entry.measure.name == name);
    if let Some(entry) = by_name(name) {
        if matches!(entry.compute, Compute::Training) {
            return Err(EvaluationError::Options(format!(
                "{name} is measured on generated levels during training only; it cannot be computed from embeddings"
            )));
        }
        return expand(entry, levels);
    }
    if let Some((family, level)) = name.split_once('@')
        && let (Some(entry), Ok(level)) = (by_name(&format!("{family}@K")), level.parse::<usize>())
    {
        return expand(entry, &[level]);
    }
    if let Some(entry) = by_name(&format!("{name}@K")) {
        return expand(entry, levels);
    }
    let mut names: Vec<&str> = REGISTRY.iter().map(|entry| entry.measure.name).collect();
    names.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)));
    names.truncate(4);
    Err(EvaluationError::Options(format!(
        "there is no measure called {name}; the nearest names are {}; see `gradus list metrics`",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_families_and_mistakes() {
        let keys = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let found = asked(&names, &[1, 4]);
            found
                .map(|all| all.into_iter().map(|one| one.key).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            keys(&["recall", "map@r", "recall@4"]).unwrap(),
            ["recall@1", "recall@4", "map@r"]
        );
        assert_eq!(
            keys(&["recall@10", "precision@K"]).unwrap(),
            ["recall@10", "precision@1", "precision@4"]
        );
        assert!(keys(&["recal"]).unwrap_err().contains("recall@K"));
        assert!(keys(&["recall@0"]).unwrap_err().contains("recall@0"));
        assert!(keys(&["misordered"]).unwrap_err().contains("training"));
    }
}
