//! How two items belong together: what losses, miners and metrics ask instead of comparing class numbers.
//!
//! One class per item is the usual case, but not the only one: an item may carry several labels, levels of a hierarchy, or
//! the judgements of a person. All of them answer the same question for a pair of items.

use std::sync::Arc;

/// What an item of the query set is to an item of the reference set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Relation {
    /// They belong together: a positive pair.
    Same,
    /// They do not: a negative pair.
    Different,
    /// Nobody knows, or it must not matter: no pair at all.
    Ignore,
    /// They belong together to this degree, above 0 and below 1: a positive pair of that weight.
    Weighted(f32),
}

impl Relation {
    /// Weight of the pair as a positive one: 1 for [`Same`](Self::Same), 0 for pairs that are none.
    #[must_use]
    pub fn positive_weight(self) -> f32 {
        match self {
            Self::Same => 1.0,
            Self::Weighted(weight) => weight,
            Self::Different | Self::Ignore => 0.0,
        }
    }

    /// Whether the pair is a negative one.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self == Self::Different
    }
}

/// What is known of the items of one set, in the form it is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// One class each.
    Classes(Arc<[u32]>),
    /// Any number of labels each, ascending without repetition: items are related by the share of labels they have in
    /// common (Jaccard index); no label at all is [`Relation::Ignore`].
    MultiLabel(Arc<[Vec<u32>]>),
    /// Class numbers from the coarsest level to the finest, the same number of levels each: items are related by the share
    /// of levels, from the coarsest on, that they agree on.
    Hierarchy(Arc<[Vec<u32>]>),
}

impl Labels {
    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::MultiLabel(labels) => labels.len(),
            Self::Hierarchy(levels) => levels.len(),
        }
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes, where every item has exactly one.
    #[must_use]
    pub fn classes(&self) -> Option<&Arc<[u32]>> {
        match self {
            Self::Classes(classes) => Some(classes),
            Self::MultiLabel(_) | Self::Hierarchy(_) => None,
        }
    }

    /// Those of some of the items.
    pub(crate) fn select(&self, items: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], items: &[usize]) -> Arc<[T]> {
            items.iter().map(|&item| all[item].clone()).collect()
        }
        match self {
            Self::Classes(classes) => Self::Classes(of(classes, items)),
            Self::MultiLabel(labels) => Self::MultiLabel(of(labels, items)),
            Self::Hierarchy(levels) => Self::Hierarchy(of(levels, items)),
        }
    }

    /// What item `query` of this set is to item `reference` of another one.
    ///
    /// # Panics
    /// If an item does not exist or the sets know different things of their items.
    #[must_use]
    pub fn relation(&self, query: usize, other: &Self, reference: usize) -> Relation {
        match (self, other) {
            (Self::Classes(a), Self::Classes(b)) if a[query] == b[reference] => Relation::Same,
            (Self::Classes(_), Self::Classes(_)) => Relation::Different,
            (Self::MultiLabel(a), Self::MultiLabel(b)) => jaccard(&a[query], &b[reference]),
            (Self::Hierarchy(a), Self::Hierarchy(b)) => agreement(&a[query], &b[reference]),
            _ => panic!("two sets can be related only if both have classes, several labels, or levels of a hierarchy"),
        }
    }
}

impl From<Vec<u32>> for Labels {
    fn from(classes: Vec<u32>) -> Self {
        Self::Classes(classes.into())
    }
}

fn share(common: usize, all: usize) -> Relation {
    match common {
        0 => Relation::Different,
        _ if common == all => Relation::Same,
        _ => Relation::Weighted(common as f32 / all as f32),
    }
}

fn jaccard(a: &[u32], b: &[u32]) -> Relation {
    if a.is_empty() || b.is_empty() {
        return Relation::Ignore;
    }
    let common = a.iter().filter(|&label| b.binary_search(label).is_ok()).count();
    share(common, a.len() + b.len() - common)
}

fn agreement(a: &[u32], b: &[u32]) -> Relation {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    share(common, a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_same_or_different() {
        let labels = Labels::from(vec![3, 1, 3]);
        assert_eq!(labels.relation(0, &labels, 2), Relation::Same);
        assert_eq!(labels.relation(0, &labels, 1), Relation::Different);
    }

    #[test]
    fn several_labels_are_related_by_what_they_share() {
        let labels = Labels::MultiLabel(vec![vec![1, 2], vec![2, 3, 5], vec![4], vec![], vec![1, 2]].into());
        assert_eq!(labels.relation(0, &labels, 1), Relation::Weighted(0.25));
        assert_eq!(labels.relation(0, &labels, 2), Relation::Different);
        assert_eq!(labels.relation(0, &labels, 3), Relation::Ignore);
        assert_eq!(labels.relation(0, &labels, 4), Relation::Same);
    }

    #[test]
    fn levels_count_from_the_coarsest() {
        let labels = Labels::Hierarchy(vec![vec![1, 2], vec![1, 3], vec![0, 2], vec![1, 2]].into());
        assert_eq!(labels.relation(0, &labels, 1), Relation::Weighted(0.5));
        assert_eq!(labels.relation(0, &labels, 2), Relation::Different);
        assert_eq!(labels.relation(0, &labels, 3), Relation::Same);
        assert_eq!(Relation::Weighted(0.5).positive_weight(), 0.5);
        assert!(Relation::Different.is_negative() && !Relation::Ignore.is_negative());
    }
}
