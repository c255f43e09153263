//! Many similar requests, few at first: when a quota or a webhook refuses all of them, it shall
//! not be asked five hundred times.

use skiff_client::Error;

/// How many requests succeeded, and the first error.
pub(crate) struct Outcome {
    pub(crate) done: usize,
    pub(crate) error: Option<Error>,
}

/// Runs `request` for `0..count` in batches of 1, 2, 4, …; stops after a batch with an error.
pub(crate) async fn slow_start<F>(count: usize, request: impl Fn(usize) -> F) -> Outcome
where
    F: Future<Output = Result<(), Error>>,
{
    let mut outcome = Outcome { done: 0, error: None };
    let (mut next, mut size) = (0, 1);
    while next < count && outcome.error.is_none() {
        let end = count.min(next + size);
        for result in futures::future::join_all((next..end).map(&request)).await {
            match result {
                Ok(()) => outcome.done += 1,
                Err(error) => outcome.error = outcome.error.or(Some(error)),
            }
        }
        (next, size) = (end, size * 2);
    }
    outcome
}

/// Runs `request` for every item at once; gives the first error.
pub(crate) async fn all<T, F>(items: impl IntoIterator<Item = T>, request: impl Fn(T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let results = futures::future::join_all(items.into_iter().map(request)).await;
    results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
}
