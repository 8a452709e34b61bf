//! Group expressions as buckets of time: the time column itself, `date_bin` and `date_trunc`. The
//! functions may take it, and so give buckets, in a finer unit than the column's.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, IntervalDayTimeType, IntervalMonthDayNanoType};
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::scalar::ScalarValue;
use tidelog_core::{TimeRange, TimeUnit};

use super::why_not::WhyNot;

const DAY: i64 = 86_400_000_000_000;
/// A Monday: weeks begin on one.
const MONDAY: i64 = 4 * DAY;

/// The time column of a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time<'a> {
    pub(super) name: &'a str,
    pub(super) unit: TimeUnit,
    /// The column's type.
    pub(super) data_type: &'a DataType,
    /// No row is outside.
    pub(super) range: TimeRange,
}

/// Buckets of time, in the unit of the time column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeBuckets {
    pub(super) origin: i64,
    pub(super) width: i64,
}

/// The buckets that an expression puts times in, if that is all it does.
///
/// The functions count in nanoseconds, and what is beyond these is null or an error. The backend
/// counts in the column's unit. They agree where buckets begin and end at whole units, and all that
/// is on the way has room in 64 bits of nanoseconds.
pub(super) fn buckets(expr: &Arc<dyn PhysicalExpr>, time: Time<'_>) -> Result<TimeBuckets, WhyNot> {
    if is_time(expr, time) {
        return Ok(TimeBuckets { origin: 0, width: 1 });
    }
    let not = || WhyNot::new(format!("groups by {expr}"));
    let call = expr.downcast_ref::<ScalarFunctionExpr>().ok_or_else(not)?;
    let (origin, width) = match (call.fun().name(), call.args()) {
        ("date_bin", [stride, of]) if is_time(of, time) => {
            (0, stride_nanos(stride).ok_or_else(not)?)
        }
        ("date_bin", [stride, of, origin]) if is_time(of, time) => {
            let origin = match literal(origin) {
                Some(ScalarValue::TimestampNanosecond(Some(nanos), _)) => *nanos,
                _ => return Err(not()),
            };
            (origin, stride_nanos(stride).ok_or_else(not)?)
        }
        ("date_trunc", [precision, of]) if is_time(of, time) => {
            truncation(literal(precision), time).ok_or_else(not)?
        }
        _ => return Err(not()),
    };
    let unit = time.unit.nanos();
    let whole = width > 0 && width % unit == 0 && origin % unit == 0;
    // Also a finer truncation than the unit, which leaves times as they are.
    let (origin, width) = match whole {
        true => (origin, width),
        false if call.fun().name() == "date_trunc" && width > 0 && unit % width == 0 => (0, unit),
        false => return Err(not()),
    };
    let has_room = |time: i64| {
        let within = time.checked_sub(origin).is_some() && time.checked_sub(width).is_some();
        within && time.checked_sub(origin).and_then(|t| t.checked_sub(width)).is_some()
    };
    if !has_room(time.range.start().nanos()) || !has_room(time.range.end().nanos()) {
        return Err(WhyNot::new("buckets at the end of time"));
    }
    Ok(TimeBuckets { origin: origin / unit, width: width / unit })
}

/// The time column, or the same in a finer unit, which is how functions take it.
fn is_time(expr: &Arc<dyn PhysicalExpr>, time: Time<'_>) -> bool {
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return is_finer(time.data_type, cast.cast_type()) && is_time(cast.expr(), time);
    }
    expr.downcast_ref::<Column>().is_some_and(|column| column.name() == time.name)
}

/// Whether a type tells the times of another one in a finer unit, or in the same.
pub(super) fn is_finer(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(from, zone), DataType::Timestamp(to, other)) => {
            to >= from && zone == other
        }
        _ => false,
    }
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

/// An interval without months, in nanoseconds.
fn stride_nanos(expr: &Arc<dyn PhysicalExpr>) -> Option<i64> {
    let (days, nanos) = match literal(expr)? {
        ScalarValue::IntervalDayTime(Some(interval)) => {
            let (days, millis) = IntervalDayTimeType::to_parts(*interval);
            (days, i64::from(millis) * 1_000_000)
        }
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            match IntervalMonthDayNanoType::to_parts(*interval) {
                (0, days, nanos) => (days, nanos),
                _ => return None,
            }
        }
        _ => return None,
    };
    i64::from(days).checked_mul(DAY)?.checked_add(nanos)
}

/// Origin and width of what a truncation makes, in nanoseconds. In another zone than UTC days are not
/// all as long.
fn truncation(precision: Option<&ScalarValue>, time: Time<'_>) -> Option<(i64, i64)> {
    let (ScalarValue::Utf8(Some(precision))
    | ScalarValue::Utf8View(Some(precision))
    | ScalarValue::LargeUtf8(Some(precision))) = precision?
    else {
        return None;
    };
    let zone = match time.data_type {
        DataType::Timestamp(_, zone) => zone.as_deref(),
        _ => return None,
    };
    if zone.is_some_and(|zone| !matches!(zone, "UTC" | "+00:00")) {
        return None;
    }
    Some(match precision.to_lowercase().as_str() {
        "microsecond" => (0, 1_000),
        "millisecond" => (0, 1_000_000),
        "second" => (0, 1_000_000_000),
        "minute" => (0, 60_000_000_000),
        "hour" => (0, 3_600_000_000_000),
        "day" => (0, DAY),
        "week" => (MONDAY, 7 * DAY),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema, TimeUnit as ArrowUnit};
    use datafusion::common::DFSchema;
    use datafusion::functions::expr_fn::{date_bin, date_trunc};
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;
    use tidelog_core::EventTime;

    use super::*;

    fn of(expr: &Expr, unit: TimeUnit, zone: Option<&str>, range: TimeRange) -> Option<(i64, i64)> {
        let arrow = match unit {
            TimeUnit::Second => ArrowUnit::Second,
            TimeUnit::Millisecond => ArrowUnit::Millisecond,
            TimeUnit::Microsecond => ArrowUnit::Microsecond,
            _ => ArrowUnit::Nanosecond,
        };
        let data_type = DataType::Timestamp(arrow, zone.map(Into::into));
        let schema = Schema::new(vec![Field::new("t", data_type.clone(), false)]);
        let names = DFSchema::try_from(schema).unwrap();
        let expr = SessionContext::new().create_physical_expr(expr.clone(), &names).unwrap();
        let time = Time { name: "t", unit, data_type: &data_type, range };
        buckets(&expr, time).ok().map(|buckets| (buckets.origin, buckets.width))
    }

    fn interval(months: i32, days: i32, nanos: i64) -> Expr {
        let parts = IntervalMonthDayNanoType::make_value(months, days, nanos);
        lit(ScalarValue::IntervalMonthDayNano(Some(parts)))
    }

    #[test]
    fn bins_and_truncations_are_buckets_in_the_unit_of_the_column() {
        let now = TimeRange::try_new(0, i64::MAX / 2).unwrap();
        let minute = date_bin(interval(0, 0, 60_000_000_000), col("t"), lit(ns(30_000_000_000)));
        assert_eq!(of(&minute, TimeUnit::Second, None, now), Some((30, 60)));
        assert_eq!(of(&minute, TimeUnit::Microsecond, None, now), Some((30_000_000, 60_000_000)));
        let day = date_trunc(lit("DAY"), col("t"));
        assert_eq!(of(&day, TimeUnit::Millisecond, Some("UTC"), now), Some((0, 86_400_000)));
        let week = date_trunc(lit("week"), col("t"));
        assert_eq!(of(&week, TimeUnit::Second, None, now), Some((345_600, 604_800)));
        let fine = date_trunc(lit("millisecond"), col("t"));
        assert_eq!(of(&fine, TimeUnit::Second, None, now), Some((0, 1)));
        assert_eq!(of(&col("t"), TimeUnit::Second, None, TimeRange::ALL), Some((0, 1)));
    }

    #[test]
    fn what_is_no_bucket_of_the_unit_is_refused() {
        let now = TimeRange::try_new(0, i64::MAX / 2).unwrap();
        let half = date_bin(interval(0, 0, 500_000_000), col("t"), lit(ns(0)));
        assert_eq!(of(&half, TimeUnit::Second, None, now), None);
        let shifted = date_bin(interval(0, 0, 2_000_000_000), col("t"), lit(ns(1)));
        assert_eq!(of(&shifted, TimeUnit::Second, None, now), None);
        for months in
            [date_bin(interval(1, 0, 0), col("t"), lit(ns(0))), date_trunc(lit("month"), col("t"))]
        {
            assert_eq!(of(&months, TimeUnit::Second, None, now), None);
        }
        let day = date_trunc(lit("day"), col("t"));
        assert_eq!(of(&day, TimeUnit::Second, Some("Asia/Kathmandu"), now), None);
    }

    #[test]
    fn buckets_that_begin_before_the_first_nanosecond_are_refused() {
        let day = date_trunc(lit("day"), col("t"));
        let from = |start: i64| TimeRange::try_new(EventTime::from_nanos(start), 0).unwrap();
        assert_eq!(of(&day, TimeUnit::Second, None, from(i64::MIN)), None);
        assert_eq!(of(&day, TimeUnit::Second, None, from(i64::MIN + DAY)), Some((0, 86_400)));
    }

    fn ns(nanos: i64) -> ScalarValue {
        ScalarValue::TimestampNanosecond(Some(nanos), None)
    }
}
