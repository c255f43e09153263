//! Between [`skiff_base::Timestamp`] and the API's times.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff;
use skiff_base::Timestamp;

/// `at` in whole seconds, the precision of the API's times.
pub fn to_time(at: Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(at.as_secs()).unwrap_or_default())
}

/// `at` in microseconds, the precision of leases and events.
pub fn to_micro_time(at: Timestamp) -> MicroTime {
    MicroTime(jiff::Timestamp::from_microsecond(at.as_nanos().div_euclid(1_000)).unwrap_or_default())
}

/// The moment of `time`.
pub fn from_time(time: &Time) -> Timestamp {
    from_jiff(time.0)
}

/// The moment of `time`.
pub fn from_micro_time(time: &MicroTime) -> Timestamp {
    from_jiff(time.0)
}

fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or_default())
}
