//! The graph (HNSW) of Qdrant Edge, inside this process.
//!
//! Rows are the ids of its points. It keeps vectors, class and payload of its own; the files of the index stay the truth.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use qdrant_edge::{
    CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeVectorParams, FieldIndexOperations,
    HnswIndexConfig, JsonPath, NamedQuery, OperationError, PayloadFieldSchema, PayloadSchemaType, PointId,
    PointInsertOperations, PointOperations, PointStruct, QueryEnum, ScrollRequest, SearchParams, SearchRequest,
    UpdateOperation, WalOptions, WithPayloadInterface, WithVector,
};
use serde_json::json;

use super::{EngineKind, EngineStatistics, Neighbor, VectorIndex, qdrant_filter};
use crate::IndexError;
use crate::filter::Filter;
use crate::index::lock_file;
use crate::item::{FieldKind, Fields, Item};

/// Edges of a node of the graph; more find more, and take more room.
const EDGES: usize = 16;
/// Candidates looked at for every node while the graph is built.
const BUILD_CANDIDATES: usize = 200;
/// Candidates kept while searching, at least.
const SEARCH_CANDIDATES: usize = 128;
/// Bytes of vectors (in KiB) from which on there is a graph; fewer are compared one by one.
const GRAPH_FROM_KIB: usize = 10_000;
/// Rows listed at a time.
const ROWS_AT_A_TIME: usize = 10_000;

/// Approximate search by the graph of Qdrant Edge.
#[derive(Debug)]
pub struct QdrantEdge {
    shard: EdgeShard,
    dimension: usize,
    /// Changes come one at a time.
    changes: Mutex<()>,
    /// A shard can be open only once; the lock says so before it fails in ways of its own.
    _lock: File,
}

fn failed(error: OperationError) -> IndexError {
    IndexError::Engine {
        engine: EngineKind::QdrantEdge.name(),
        problem: error.to_string(),
    }
}

fn row_of(id: PointId) -> Option<u32> {
    match id {
        PointId::NumId(row) => u32::try_from(row).ok(),
        PointId::Uuid(_) => None,
    }
}

fn config(dimension: usize) -> EdgeConfig {
    let graph = HnswIndexConfig {
        m: EDGES,
        ef_construct: BUILD_CANDIDATES,
        ..HnswIndexConfig::default()
    };
    EdgeConfig::builder()
        .vector("", EdgeVectorParams::builder(dimension, Distance::Cosine).build())
        .hnsw_config(graph)
        // One graph: several would be searched one after the other.
        .optimizers(EdgeOptimizersConfig {
            default_segment_number: Some(1),
            max_segment_size: Some(usize::MAX / 2048),
            indexing_threshold: Some(GRAPH_FROM_KIB),
            ..EdgeOptimizersConfig::default()
        })
        .wal_options(WalOptions {
            segment_capacity: 4 << 20,
            ..WalOptions::default()
        })
        .build()
}

fn lock(path: &Path) -> Result<File, IndexError> {
    let file = path.with_extension("lock");
    lock_file(&file, path.parent().unwrap_or(path), "it has the engine open")
}

impl QdrantEdge {
    /// Makes an empty shard in a new folder.
    ///
    /// # Errors
    /// A folder that is there or cannot be made, or a shard that another process has open.
    pub fn create(path: &Path, dimension: usize) -> Result<Self, IndexError> {
        let lock = lock(path)?;
        std::fs::create_dir(path).map_err(IndexError::file(path))?;
        Ok(Self {
            shard: EdgeShard::new(path, config(dimension)).map_err(failed)?,
            dimension,
            changes: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Opens a shard.
    ///
    /// # Errors
    /// A shard that another process has open, or that is damaged.
    pub fn open(path: &Path, dimension: usize) -> Result<Self, IndexError> {
        let lock = lock(path)?;
        Ok(Self {
            shard: EdgeShard::load(path, Some(config(dimension))).map_err(failed)?,
            dimension,
            changes: Mutex::new(()),
            _lock: lock,
        })
    }

    fn update(&self, operation: UpdateOperation) -> Result<(), IndexError> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.shard.update(operation).map_err(failed)
    }
}

impl VectorIndex for QdrantEdge {
    fn kind(&self) -> EngineKind {
        EngineKind::QdrantEdge
    }

    fn declare(&self, fields: &Fields) -> Result<(), IndexError> {
        let known = self.shard.info().payload_schema;
        let payload = fields.iter().map(|(name, kind)| (qdrant_filter::key(name), *kind));
        for (key, kind) in std::iter::once((qdrant_filter::CLASS.to_owned(), FieldKind::Text)).chain(payload) {
            let field_name: JsonPath = key
                .parse()
                .map_err(|()| IndexError::Item(format!("{key} cannot be a field of the payload")))?;
            if known.contains_key(&field_name) {
                continue;
            }
            let schema = match kind {
                FieldKind::Text => PayloadSchemaType::Keyword,
                FieldKind::Number => PayloadSchemaType::Float,
                FieldKind::Boolean => PayloadSchemaType::Bool,
            };
            self.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(
                CreateIndex {
                    field_name,
                    field_schema: Some(PayloadFieldSchema::FieldType(schema)),
                },
            )))?;
        }
        Ok(())
    }

    fn add(&self, rows: &[u32], items: &[Arc<Item>], vectors: &[f32]) -> Result<(), IndexError> {
        let points = rows.iter().zip(items).zip(vectors.chunks_exact(self.dimension));
        let points = points.map(|((&row, item), vector)| {
            let payload = json!({qdrant_filter::CLASS: item.class, qdrant_filter::PAYLOAD: item.payload});
            PointStruct::new(u64::from(row), vector.to_vec(), payload).into()
        });
        let points: Vec<_> = points.collect();
        if points.is_empty() {
            return Ok(());
        }
        self.update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(
            PointInsertOperations::PointsList(points),
        )))
    }

    fn delete(&self, rows: &[u32]) -> Result<(), IndexError> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids = rows.iter().map(|&row| PointId::NumId(u64::from(row))).collect();
        self.update(UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }))
    }

    fn search(&self, query: &[f32], count: usize, filter: &Filter) -> Result<Vec<Neighbor>, IndexError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let filter = qdrant_filter::to_json(filter)
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| IndexError::Filter(error.to_string()))?;
        let found = self
            .shard
            .search(SearchRequest {
                query: QueryEnum::Nearest(NamedQuery::default_dense(query.to_vec())),
                filter,
                params: Some(SearchParams {
                    hnsw_ef: Some(SEARCH_CANDIDATES.max(2 * count)),
                    ..SearchParams::default()
                }),
                limit: count,
                offset: 0,
                with_payload: None,
                with_vector: None,
                score_threshold: None,
            })
            .map_err(failed)?;
        Ok(found
            .into_iter()
            .filter_map(|point| {
                Some(Neighbor {
                    row: row_of(point.id)?,
                    score: point.score,
                })
            })
            .collect())
    }

    fn rows(&self) -> Result<Vec<u32>, IndexError> {
        let mut rows = Vec::new();
        let mut offset = None;
        loop {
            let request = ScrollRequest {
                offset,
                limit: Some(ROWS_AT_A_TIME),
                filter: None,
                with_payload: Some(WithPayloadInterface::Bool(false)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            };
            let (points, next) = self.shard.scroll(request).map_err(failed)?;
            rows.extend(points.iter().filter_map(|point| row_of(point.id)));
            if next.is_none() {
                rows.sort_unstable();
                return Ok(rows);
            }
            offset = next;
        }
    }

    fn flush(&self) -> Result<(), IndexError> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.shard.flush();
        Ok(())
    }

    fn optimize(&self) -> Result<(), IndexError> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.shard.optimize().map(|_| ()).map_err(failed)
    }

    fn statistics(&self) -> Result<EngineStatistics, IndexError> {
        let info = self.shard.info();
        Ok(EngineStatistics {
            rows: info.points_count,
            approximate_rows: info.indexed_vectors_count,
            segments: info.segments_count,
        })
    }
}
