//! Which rows of the gallery are relevant to a query, and which do not take part.

use std::collections::HashMap;
use std::ops::Range;

use super::EvaluationError;
use crate::relations::{Labels, Relation};

/// Knows, for every query, the rows of the gallery that are more than plain wrong answers to it.
///
/// Those are the relevant ones (same class, or at least one label in common), the query itself, and **junk**: rows that must
/// neither help nor harm (re-identification: same identity seen by the same camera, Zheng et al., Scalable Person
/// Re-identification: A Benchmark, ICCV 2015; several labels: rows that have none). They are left out by index, never by rank.
#[derive(Clone, Debug)]
pub struct Relevance {
    queries: Labels,
    /// `None`: the queries search each other.
    gallery: Option<Labels>,
    cameras: Option<[Vec<u32>; 2]>,
    /// Rows that stand together, rising: of a class, or, with several labels, all that one query knows.
    known: Vec<u32>,
    starts: Vec<usize>,
    /// The group of each query.
    groups: Vec<u32>,
}

impl Relevance {
    /// From the labels of queries and gallery; without a gallery the queries search each other.
    ///
    /// # Errors
    /// If the two sets know different things of their items (classes, several labels, a hierarchy).
    pub fn new(queries: Labels, gallery: Option<Labels>) -> Result<Self, EvaluationError> {
        let target = gallery.as_ref().unwrap_or(&queries);
        let (known, starts, groups) = match (&queries, target) {
            (Labels::Classes(classes), Labels::Classes(others)) => grouped(classes.iter(), others.iter()),
            (Labels::Hierarchy(levels), Labels::Hierarchy(others)) => {
                // Rows that do not even share the coarsest level are unrelated.
                grouped(
                    levels.iter().map(|item| item.first()),
                    others.iter().map(|item| item.first()),
                )
            }
            (Labels::MultiLabel(labels), Labels::MultiLabel(others)) => sharing(labels, others),
            _ => {
                return Err(EvaluationError::Options(
                    "queries and gallery are labelled in different ways: give both one class per row, or both several labels per row"
                        .into(),
                ));
            }
        };
        Ok(Self {
            queries,
            gallery,
            cameras: None,
            known,
            starts,
            groups,
        })
    }

    /// Leaves out, for each query, the relevant rows seen by the same camera.
    ///
    /// # Errors
    /// If there is not one camera for each row.
    pub fn without_same_camera(mut self, queries: Vec<u32>, gallery: Vec<u32>) -> Result<Self, EvaluationError> {
        for (what, cameras, rows) in [
            ("query", &queries, self.queries()),
            ("gallery", &gallery, self.gallery()),
        ] {
            if cameras.len() != rows {
                return Err(EvaluationError::Options(format!(
                    "there are {} cameras for {rows} rows of the {what} set: give one camera number for each row",
                    cameras.len()
                )));
            }
        }
        self.cameras = Some([queries, gallery]);
        Ok(self)
    }

    /// Number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Number of rows of the gallery.
    #[must_use]
    pub fn gallery(&self) -> usize {
        self.gallery.as_ref().unwrap_or(&self.queries).len()
    }

    /// Whether a row can be relevant to a degree.
    #[must_use]
    pub fn graded(&self) -> bool {
        self.queries.classes().is_none()
    }

    /// The number of what a query knows: the same for queries that know the same rows.
    #[inline(always)]
    pub(super) fn group(&self, query: usize) -> usize {
        self.groups[query] as usize
    }

    /// Rows that are no plain wrong answers, rising.
    pub(super) fn known(&self, query: usize) -> &[u32] {
        let group = self.group(query);
        &self.known[self.starts[group]..self.starts[group + 1]]
    }

    /// Whether all that a query knows, but itself, is relevant to the same degree.
    pub(super) fn plain(&self) -> bool {
        !self.graded() && self.cameras.is_none()
    }

    /// How many rows are relevant to a query, and how many it knows that take no part.
    pub(super) fn counts(&self, query: usize) -> (usize, usize) {
        let known = self.known(query).len();
        let relevant = if self.plain() {
            // A query is of its own class.
            known - usize::from(self.gallery.is_none())
        } else {
            self.relevant(query).count()
        };
        (relevant, known - relevant)
    }

    /// Whether a row is relevant to a query, in whatever degree; `None` if it takes no part.
    #[inline(always)]
    pub(super) fn judge(&self, query: usize, row: usize) -> Option<bool> {
        let target = self.gallery.as_ref().unwrap_or(&self.queries);
        match self.queries.relation(query, target, row) {
            Relation::Different => Some(false),
            Relation::Ignore => None,
            Relation::Same | Relation::Weighted(_) => {
                let itself = self.gallery.is_none() && row == query;
                (!itself && !self.same_camera(query, row)).then_some(true)
            }
        }
    }

    #[inline(always)]
    fn same_camera(&self, query: usize, row: usize) -> bool {
        self.cameras
            .as_ref()
            .is_some_and(|[queries, gallery]| queries[query] == gallery[row])
    }

    /// The same for some of the queries. Without a gallery they search all queries, each but itself, though by name of a gallery.
    pub(super) fn of_queries(&self, queries: &[usize]) -> Self {
        let cameras = match (&self.cameras, &self.gallery) {
            (Some([cameras, gallery]), _) => {
                let cameras = queries.iter().map(|&query| cameras[query]).collect();
                Some([cameras, gallery.clone()])
            }
            (None, Some(_)) => None,
            // Seen by a camera of its own, a row is left out for itself alone.
            (None, None) => {
                let cameras = queries.iter().map(|&query| query as u32).collect();
                Some([cameras, (0..self.queries() as u32).collect()])
            }
        };
        Self {
            queries: self.queries.select(queries),
            gallery: Some(self.gallery.as_ref().unwrap_or(&self.queries).clone()),
            cameras,
            known: self.known.clone(),
            starts: self.starts.clone(),
            groups: queries.iter().map(|&query| self.groups[query]).collect(),
        }
    }

    /// The relevant rows, rising, with their degree (above 0, at most 1).
    pub(super) fn relevant(&self, query: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.relevant_within(query, 0..u32::MAX)
    }

    /// The relevant rows within a range of positions.
    pub(super) fn relevant_within(&self, query: usize, rows: Range<u32>) -> impl Iterator<Item = (u32, f32)> + '_ {
        let target = self.gallery.as_ref().unwrap_or(&self.queries);
        let known = self.known(query);
        let from = known.partition_point(|&row| row < rows.start);
        let until = known.partition_point(|&row| row < rows.end).max(from);
        known[from..until].iter().filter_map(move |&row| {
            if self.gallery.is_none() && row as usize == query {
                return None;
            }
            let degree = match self.queries.relation(query, target, row as usize) {
                Relation::Same => 1.0,
                Relation::Weighted(weight) => weight,
                Relation::Different | Relation::Ignore => return None,
            };
            (!self.same_camera(query, row as usize)).then_some((row, degree))
        })
    }
}

type Groups = (Vec<u32>, Vec<usize>, Vec<u32>);

/// Gallery rows by class, and the group of each query; a class the gallery does not have is an empty group.
fn grouped<K: Eq + std::hash::Hash>(queries: impl Iterator<Item = K>, gallery: impl Iterator<Item = K>) -> Groups {
    let mut numbers: HashMap<K, u32> = HashMap::new();
    let mut lists: Vec<Vec<u32>> = Vec::new();
    for (row, key) in gallery.enumerate() {
        let next = lists.len() as u32;
        let group = *numbers.entry(key).or_insert(next);
        if group == next {
            lists.push(Vec::new());
        }
        lists[group as usize].push(row as u32);
    }
    lists.push(Vec::new());
    let none = lists.len() as u32 - 1;
    let groups = queries.map(|key| numbers.get(&key).copied().unwrap_or(none)).collect();
    flat(lists, groups)
}

/// For each query the rows that share a label with it, and those without any label.
fn sharing(queries: &[Vec<u32>], gallery: &[Vec<u32>]) -> Groups {
    let mut holders: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut unlabelled = Vec::new();
    for (row, labels) in gallery.iter().enumerate() {
        if labels.is_empty() {
            unlabelled.push(row as u32);
        }
        for &label in labels {
            holders.entry(label).or_default().push(row as u32);
        }
    }
    let lists = queries
        .iter()
        .map(|labels| {
            let mut rows = unlabelled.clone();
            for label in labels {
                rows.extend(holders.get(label).into_iter().flatten());
            }
            rows.sort_unstable();
            rows.dedup();
            rows
        })
        .collect();
    flat(lists, (0..queries.len() as u32).collect())
}

fn flat(lists: Vec<Vec<u32>>, groups: Vec<u32>) -> Groups {
    let mut starts = vec![0];
    let mut known = Vec::new();
    for list in lists {
        known.extend(list);
        starts.push(known.len());
    }
    (known, starts, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(relevance: &Relevance, query: usize) -> Vec<(u32, f32)> {
        relevance.relevant(query).collect()
    }

    #[test]
    fn classes_cameras_and_the_query_itself() {
        let relevance = Relevance::new(vec![3, 1, 3, 3].into(), None).unwrap();
        assert_eq!(rows(&relevance, 0), [(2, 1.0), (3, 1.0)]);
        assert_eq!(relevance.known(0), [0, 2, 3]);
        assert!(rows(&relevance, 1).is_empty());
        let relevance = Relevance::new(vec![3, 9].into(), Some(vec![3, 1, 3].into())).unwrap();
        assert_eq!(rows(&relevance, 0), [(0, 1.0), (2, 1.0)]);
        assert!(relevance.known(1).is_empty());
        let seen = relevance.without_same_camera(vec![0, 0], vec![0, 1, 2]).unwrap();
        assert_eq!(rows(&seen, 0), [(2, 1.0)]);
        assert_eq!(seen.known(0), [0, 2]);
        assert!(seen.without_same_camera(vec![0], vec![0, 1, 2]).is_err());
    }

    #[test]
    fn some_queries_know_what_they_knew_among_all() {
        let classes = || Labels::from(vec![3, 1, 3, 3, 1]);
        let cameras = vec![0, 0, 1, 0, 1];
        let itself = Relevance::new(classes(), None).unwrap();
        let gallery = Relevance::new(classes(), Some(vec![3, 3, 9, 1].into())).unwrap();
        let seen = itself.clone().without_same_camera(cameras.clone(), cameras).unwrap();
        for all in [itself, gallery, seen] {
            let queries = [3, 1, 0];
            let some = all.of_queries(&queries);
            assert_eq!([some.queries(), some.gallery()], [3, all.gallery()]);
            for (place, &query) in queries.iter().enumerate() {
                assert_eq!(rows(&some, place), rows(&all, query));
                let (relevant, apart) = all.counts(query);
                assert_eq!(relevant, rows(&all, query).len());
                assert_eq!(some.counts(place), (relevant, apart));
                let judged = |verdict| {
                    (0..all.gallery())
                        .filter(|&row| all.judge(query, row) == verdict)
                        .count()
                };
                assert_eq!([judged(Some(true)), judged(None)], [relevant, apart]);
            }
        }
    }

    #[test]
    fn several_labels_give_degrees_and_rows_without_any_are_junk() {
        let labels = Labels::MultiLabel(vec![vec![1, 2], vec![2, 3, 5], vec![], vec![4], vec![1, 2]].into());
        let relevance = Relevance::new(labels.clone(), None).unwrap();
        assert_eq!(rows(&relevance, 0), [(1, 0.25), (4, 1.0)]);
        assert_eq!(relevance.known(0), [0, 1, 2, 4]);
        assert!(rows(&relevance, 2).is_empty());
        assert!(Relevance::new(labels, Some(vec![1].into())).is_err());
        let levels = Labels::Hierarchy(vec![vec![1, 2], vec![1, 3], vec![0, 2]].into());
        assert_eq!(rows(&Relevance::new(levels, None).unwrap(), 0), [(1, 0.5)]);
    }
}
