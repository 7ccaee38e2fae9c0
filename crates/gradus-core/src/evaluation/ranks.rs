//! Where the relevant items stand in the ranking of each query: all that the retrieval metrics need.

/// How deep into the ranking the relevant items are placed. The best one is always placed, however deep it lies, unless that is
/// [given up](Self::with_best_within).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Down to rank R, the number of relevant items of the query (MAP@R, R-precision).
    relevant: bool,
    /// Down to this rank.
    within: usize,
    /// The best relevant item down to this rank.
    best: usize,
}

impl Horizon {
    /// Only the best relevant item (Recall@K).
    pub const BEST: Self = Self::within(0);
    /// Down to rank R, the number of relevant items of the query (MAP@R, R-precision).
    pub const RELEVANT: Self = Self {
        relevant: true,
        within: 0,
        best: usize::MAX,
    };
    /// All of them.
    pub const EVERYTHING: Self = Self::within(usize::MAX);

    /// Down to a fixed rank.
    #[must_use]
    pub const fn within(rank: usize) -> Self {
        Self {
            relevant: false,
            within: rank,
            best: usize::MAX,
        }
    }

    /// The best relevant item, too, is placed no deeper than down to this rank (or the horizon, if that is deeper): faster, for those
    /// who know that nobody asks for its rank beyond. Recall@K asks for K.
    #[must_use]
    pub const fn with_best_within(self, rank: usize) -> Self {
        Self { best: rank, ..self }
    }

    /// As deep as both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            relevant: self.relevant || other.relevant,
            within: self.within.max(other.within),
            best: self.best.max(other.best),
        }
    }

    /// The deepest rank for a query with `relevant` relevant items.
    pub(super) fn limit(self, relevant: usize) -> usize {
        self.within.max(if self.relevant { relevant } else { 0 })
    }

    /// The deepest rank for the best of so many relevant items.
    pub(super) fn best_limit(self, relevant: usize) -> usize {
        self.best.max(self.limit(relevant))
    }
}

/// Ranks (from 1) of the relevant items of every query, in the order of the query set.
#[derive(Clone, Debug, PartialEq)]
pub struct PositiveRanks {
    relevant: Vec<u32>,
    starts: Vec<usize>,
    ranks: Vec<u32>,
    /// Degrees of all relevant items, nearest first; `None` where all are 1.
    degrees: Option<(Vec<usize>, Vec<f32>)>,
}

/// What was found for a query.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    /// Number of relevant items.
    pub(super) relevant: u32,
    /// Their ranks within the horizon.
    pub(super) ranks: Vec<u32>,
    /// The degrees of all of them, nearest first; of use where they are not all 1.
    pub(super) degrees: Vec<f32>,
}

impl PositiveRanks {
    /// From one list per query: the number of relevant items and the rising ranks that lie within the horizon.
    #[must_use]
    pub fn from_lists(lists: impl IntoIterator<Item = (u32, Vec<u32>)>) -> Self {
        let mut all = Self::empty(false);
        for (relevant, ranks) in lists {
            all.push(relevant, &ranks);
        }
        all
    }

    pub(super) fn empty(graded: bool) -> Self {
        Self {
            relevant: Vec::new(),
            starts: vec![0],
            ranks: Vec::new(),
            degrees: graded.then(|| (vec![0], Vec::new())),
        }
    }

    /// Appends queries.
    pub(super) fn extend(&mut self, queries: impl IntoIterator<Item = Ranked>) {
        for query in queries {
            self.push(query.relevant, &query.ranks);
            if let Some((starts, all)) = &mut self.degrees {
                all.extend(query.degrees);
                starts.push(all.len());
            }
        }
    }

    fn push(&mut self, relevant: u32, ranks: &[u32]) {
        self.relevant.push(relevant);
        self.ranks.extend(ranks);
        self.starts.push(self.ranks.len());
    }

    /// Number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.relevant.len()
    }

    /// Number of relevant items of a query (R), 0 for a lone query.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn relevant(&self, query: usize) -> usize {
        self.relevant[query] as usize
    }

    /// Rising ranks of the relevant items within the horizon; the first is there whenever the query is not a lone one, unless that
    /// was [given up](Horizon::with_best_within).
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn of(&self, query: usize) -> &[u32] {
        &self.ranks[self.starts[query]..self.starts[query + 1]]
    }

    /// How relevant each relevant item is (above 0, at most 1), nearest first, beyond the horizon too; `None` where all are 1.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn degrees(&self, query: usize) -> Option<&[f32]> {
        let (starts, degrees) = self.degrees.as_ref()?;
        Some(&degrees[starts[query]..starts[query + 1]])
    }

    /// Queries whose class has no other member in the gallery: nothing is relevant to them.
    #[must_use]
    pub fn lone_queries(&self) -> usize {
        self.relevant.iter().filter(|&&relevant| relevant == 0).count()
    }
}

impl PositiveRanks {
    /// What is known of one query.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn query(&self, query: usize) -> RankedQuery<'_> {
        RankedQuery {
            relevant: self.relevant(query),
            ranks: self.of(query),
            degrees: self.degrees(query),
        }
    }
}

/// Where the relevant items of one query stand.
#[derive(Clone, Copy, Debug)]
pub struct RankedQuery<'a> {
    /// Their number (R).
    pub relevant: usize,
    /// Their rising ranks within the horizon.
    pub ranks: &'a [u32],
    /// How relevant each is, nearest first; `None` where all are 1.
    pub degrees: Option<&'a [f32]>,
}

impl<'a> RankedQuery<'a> {
    /// Ranks up to and including K.
    pub fn within(self, k: usize) -> impl Iterator<Item = u32> + 'a {
        self.ranks.iter().copied().take_while(move |&rank| rank as usize <= k)
    }

    #[cfg(test)]
    pub(super) fn plain(relevant: usize, ranks: &'a [u32]) -> Self {
        Self {
            relevant,
            ranks,
            degrees: None,
        }
    }
}
