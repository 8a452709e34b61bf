//! A store as a DataFusion catalog: paths are tables of one schema, the log of another.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result;
use tidelog_core::{AsOf, TreePath};
use tidelog_oplog::EntryType;
use tidelog_store::Head;

use crate::error::Error;
use crate::log_tables;
use crate::session::{LOG_SCHEMA, Queries, SERIES_SCHEMA};
use crate::table::{SeriesTable, Shape, TextColumns};
use crate::tiers_table;

/// The store as one statement sees it.
#[derive(Debug)]
pub(crate) struct StoreCatalog {
    queries: Queries,
    head: Head,
}

impl StoreCatalog {
    pub(crate) fn new(queries: Queries, head: Head) -> Self {
        Self { queries, head }
    }
}

impl CatalogProvider for StoreCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SERIES_SCHEMA.to_owned(), LOG_SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let (queries, head) = (self.queries.clone(), self.head.clone());
        match name {
            SERIES_SCHEMA => Some(Arc::new(SeriesSchema { queries, head })),
            LOG_SCHEMA => Some(Arc::new(LogSchema { queries, head })),
            _ => None,
        }
    }
}

/// Series by their paths.
#[derive(Debug)]
struct SeriesSchema {
    queries: Queries,
    head: Head,
}

#[async_trait]
impl SchemaProvider for SeriesSchema {
    fn table_names(&self) -> Vec<String> {
        self.head
            .tree()
            .walk(&TreePath::root())
            .into_iter()
            .filter(|(_, node)| node.entry == EntryType::FileSeries && node.schema.is_some())
            .map(|(path, _)| path.to_string())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Ok(path) = TreePath::parse(name) else { return Ok(None) };
        let engine = self.queries.engine();
        let view = match engine.series_in(&self.head, &path, &AsOf::Head).await {
            Ok(view) => view,
            Err(error) => return Err(Error::Store(error).into()),
        };
        let table = SeriesTable::try_new(
            engine.clone(),
            self.queries.url().clone(),
            vec![view],
            path.to_string(),
            Shape::Series,
            TextColumns::AsViews,
            &AsOf::Head,
        )?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TreePath::parse(name).is_ok_and(|path| self.head.tree().resolve(&path).is_some())
    }
}

/// The operation log.
#[derive(Debug)]
struct LogSchema {
    queries: Queries,
    head: Head,
}

#[async_trait]
impl SchemaProvider for LogSchema {
    fn table_names(&self) -> Vec<String> {
        let names = log_tables::NAMES.into_iter().chain([tiers_table::NAME]);
        names.map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == tiers_table::NAME {
            return tiers_table::table(self.queries.engine()).await.map(Some);
        }
        log_tables::table(name, self.queries.engine().log().clone(), self.head.clone())
    }

    fn table_exist(&self, name: &str) -> bool {
        log_tables::NAMES.contains(&name) || name == tiers_table::NAME
    }
}
