//! What can go wrong in a query.

use std::error::Error as StdError;
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use thiserror::Error;
use tidelog_core::ErrorKind;

/// An error of a query.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] tidelog_store::Error),
    /// The statement is larger than any that is planned.
    #[error("the statement has {found} {what}, more than the {limit} allowed; {remedy}")]
    StatementLimit {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
        /// What to write instead.
        remedy: &'static str,
    },
    /// The statement does something that the policy does not allow.
    #[error("{what} is not allowed here; only queries, EXPLAIN and INSERT INTO a series are")]
    NotAllowed {
        /// What it does.
        what: String,
    },
    /// The statement asks for what cannot be done.
    #[error("{message}")]
    Unsupported {
        /// What.
        message: String,
    },
    /// The statement or an option is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong, and where.
        message: String,
    },
    /// A limit was reached while running.
    #[error("{message}; raise the memory limit (`--memory`) or ask for less")]
    Resources {
        /// Which limit.
        message: String,
    },
    /// The engine failed.
    #[error("the query failed: {message}")]
    Execution {
        /// How.
        message: String,
    },
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::StatementLimit { .. } | Self::Resources { .. } => ErrorKind::LimitExceeded,
            Self::NotAllowed { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::Execution { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        if let Some(own) = own_cause(&error) {
            return own;
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(message) => {
                Self::Resources { message: message.clone() }
            }
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::Configuration(_)
            | DataFusionError::Execution(_) => {
                Self::Invalid { message: error.strip_backtrace().to_string() }
            }
            DataFusionError::NotImplemented(message) => {
                Self::Unsupported { message: message.clone() }
            }
            _ => match computing_cause(&error) {
                Some(message) => Self::Invalid { message },
                None => Self::Execution { message: error.strip_backtrace().to_string() },
            },
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

/// An error of ours that travelled through DataFusion, Parquet or Arrow.
fn own_cause(error: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(own) = current.downcast_ref::<Error>() {
            return Some(own.clone());
        }
        if let Some(store) = current.downcast_ref::<tidelog_store::Error>() {
            return Some(Error::Store(store.clone()));
        }
        next = inner(current).or_else(|| current.source());
    }
    None
}

/// A computation of the statement that values did not allow, such as a division by zero.
fn computing_cause(error: &DataFusionError) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(arrow) = current.downcast_ref::<ArrowError>() {
            match arrow {
                ArrowError::CastError(_)
                | ArrowError::ParseError(_)
                | ArrowError::DivideByZero
                | ArrowError::ArithmeticOverflow(_)
                | ArrowError::ComputeError(_)
                | ArrowError::InvalidArgumentError(_) => return Some(arrow.to_string()),
                _ => {}
            }
        }
        next = inner(current).or_else(|| current.source());
    }
    None
}

/// Causes that the wrappers do not give out as `source`.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return match error {
            DataFusionError::External(inner) => Some(inner.as_ref()),
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                Some(inner.as_ref())
            }
            DataFusionError::Shared(inner) => Some(inner.as_ref()),
            DataFusionError::ParquetError(inner) => Some(inner.as_ref()),
            DataFusionError::ArrowError(inner, _) => Some(inner.as_ref()),
            DataFusionError::Collection(all) => all.first().map(|e| e as &(dyn StdError + 'static)),
            _ => None,
        };
    }
    if let Some(ParquetError::External(inner)) = error.downcast_ref::<ParquetError>() {
        return Some(inner.as_ref());
    }
    if let Some(ArrowError::ExternalError(inner)) = error.downcast_ref::<ArrowError>() {
        return Some(inner.as_ref());
    }
    if let Some(shared) = error.downcast_ref::<Arc<DataFusionError>>() {
        return Some(shared.as_ref());
    }
    None
}
