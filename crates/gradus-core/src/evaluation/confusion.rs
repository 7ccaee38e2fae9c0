//! Which classes are taken for which: the class of each query's nearest neighbour.

use std::collections::BTreeMap;

/// How often queries of one class found another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// Class of the queries.
    pub class: u32,
    /// Class of their nearest neighbours.
    pub found: u32,
    /// So many queries.
    pub count: usize,
}

/// Recall@1 of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassRecall {
    /// The class.
    pub class: u32,
    /// Its queries.
    pub queries: usize,
    /// Those whose nearest neighbour is of the class.
    pub hits: usize,
}

impl ClassRecall {
    /// Share of hits.
    #[must_use]
    pub fn recall(&self) -> f64 {
        self.hits as f64 / self.queries.max(1) as f64
    }
}

/// What was taken for what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confusions {
    /// Every class with a query, the worst first; ties by number.
    pub classes: Vec<ClassRecall>,
    /// Confusions (never of a class with itself), the most frequent first; ties by numbers.
    pub pairs: Vec<Confusion>,
}

/// Counts the class of each query against the class of its nearest neighbour (`None`: it has none and does not count).
///
/// ```
/// use gradus_core::evaluation::confusions;
/// let found = confusions(&[0, 0, 1, 1], &[Some(0), Some(1), Some(1), None]);
/// assert_eq!((found.classes[0].class, found.classes[0].recall()), (0, 0.5));
/// assert_eq!((found.pairs[0].class, found.pairs[0].found, found.pairs[0].count), (0, 1, 1));
/// ```
#[must_use]
pub fn confusions(classes: &[u32], found: &[Option<u32>]) -> Confusions {
    let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (&class, found) in classes.iter().zip(found) {
        if let Some(found) = found {
            *counts.entry((class, *found)).or_default() += 1;
        }
    }
    let mut recalls: BTreeMap<u32, ClassRecall> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (&(class, found), &count) in &counts {
        let recall = recalls.entry(class).or_insert(ClassRecall {
            class,
            queries: 0,
            hits: 0,
        });
        recall.queries += count;
        if class == found {
            recall.hits += count;
        } else {
            pairs.push(Confusion { class, found, count });
        }
    }
    let mut classes: Vec<ClassRecall> = recalls.into_values().collect();
    classes.sort_by(|a, b| a.recall().total_cmp(&b.recall()).then(a.class.cmp(&b.class)));
    pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.count), pair.class, pair.found));
    Confusions { classes, pairs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_matrix() {
        let classes = [2, 2, 2, 5, 5, 9, 9, 9, 9];
        let found = [2, 5, 5, 5, 2, 9, 9, 9, 2].map(Some);
        let all = confusions(&classes, &found);
        let order: Vec<(u32, usize, usize)> = all.classes.iter().map(|c| (c.class, c.hits, c.queries)).collect();
        assert_eq!(order, [(2, 1, 3), (5, 1, 2), (9, 3, 4)]);
        let pairs: Vec<(u32, u32, usize)> = all.pairs.iter().map(|p| (p.class, p.found, p.count)).collect();
        assert_eq!(pairs, [(2, 5, 2), (5, 2, 1), (9, 2, 1)]);
        assert_eq!(confusions(&[], &[]), Confusions::default());
        assert!(confusions(&[1], &[None]).classes.is_empty());
    }
}
