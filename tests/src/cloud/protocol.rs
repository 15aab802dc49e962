//! The S3 protocol over the objects: a correct server, which knows of faults only which ETags to tell.
//!
//! A put is hashed once while it is received; a wrong Content-MD5 is answered with 400 BadDigest and nothing is stored.
//! There is no multipart upload: it is answered with 501.

mod checks;

use super::objects::{Facts, Objects, ObjectsError, Precondition, Reader, hex};
use bytes::Bytes;
use checks::Checks;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Objects up to this size are read at once, so that header and body leave together.
const AT_ONCE_BYTES_MAX: u64 = 1 << 20;

/// Bytes read at a time from bigger ones.
const CHUNK_BYTES: u64 = 1 << 20;

/// Chunks of a put that may wait for the hash and the disk.
const CHUNKS_WAITING_MAX: usize = 16;

/// Keys in one page of a listing, at most.
const PAGE_KEYS_MAX: i32 = 1_000;

/// Which ETags to tell; put into the request's extensions by the door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Etags {
    /// The MD5.
    #[default]
    Right,
    /// An MD5 of something else.
    Wrong,
    /// No MD5.
    Opaque,
}

impl Etags {
    fn of(self, facts: &Facts) -> ETag {
        ETag::Strong(match self {
            Self::Right => hex(&facts.md5),
            Self::Wrong => hex(&Md5::digest(facts.md5)),
            Self::Opaque => format!("0x8D{}", hex(&facts.md5[..6]).to_uppercase()),
        })
    }
}

/// The service behind the door.
pub(super) struct Protocol {
    pub(super) objects: Arc<Objects>,
}

impl From<ObjectsError> for S3Error {
    fn from(error: ObjectsError) -> Self {
        match &error {
            ObjectsError::NoBucket(_) => s3_error!(NoSuchBucket),
            ObjectsError::NoObject(_) => s3_error!(NoSuchKey),
            ObjectsError::Precondition(_) => s3_error!(PreconditionFailed),
            ObjectsError::KeyTooLong(_) => s3_error!(KeyTooLongError),
            ObjectsError::Disk { .. } => S3Error::internal_error(error),
        }
    }
}

/// Runs what may wait for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("work on objects does not panic")
}

fn etags<T>(request: &S3Request<T>) -> Etags {
    request.extensions.get::<Etags>().copied().unwrap_or_default()
}

fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("objects are smaller than 8 EiB")
}

fn precondition(if_match: Option<IfMatch>, if_none_match: Option<IfNoneMatch>) -> S3Result<Precondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Precondition::Md5(etag.value().into())),
        _ => Err(s3_error!(NotImplemented, "only one of If-Match and If-None-Match: *")),
    }
}

impl Protocol {
    /// Takes in a body and publishes it if it is whole and what the client says it is.
    async fn receive(&self, input: PutObjectInput) -> S3Result<Facts> {
        let bytes = input.content_length.and_then(|length| u64::try_from(length).ok());
        let precondition = precondition(input.if_match.clone(), input.if_none_match.clone())?;
        let mut checks = Checks::of(&input)?;
        let PutObjectInput { bucket, key, body, .. } = input;
        if !self.objects.bucket_names().contains(&bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        let objects = self.objects.clone();
        let (chunks, mut waiting) = mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
        // Hash and disk work while the next bytes arrive.
        let writer = spawn_blocking(move || -> io::Result<_> {
            let mut incoming = objects.incoming(bytes)?;
            while let Some(chunk) = waiting.blocking_recv() {
                incoming.write(&chunk)?;
                checks.update(&chunk);
            }
            Ok((incoming.finish()?, checks))
        });
        let mut received = 0;
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "the body broke off: {error}"))?;
                received += chunk.len() as u64;
                if chunks.send(chunk).await.is_err() {
                    break; // the writer has failed and tells why below
                }
            }
        }
        drop(chunks);
        let (whole, checks) = writer.await.expect("writing does not panic").map_err(S3Error::internal_error)?;
        if bytes.is_some_and(|told| told != received) {
            return Err(s3_error!(IncompleteBody));
        }
        checks.compare(&whole.md5)?;
        let objects = self.objects.clone();
        Ok(blocking(move || objects.publish(&bucket, &key, whole, &precondition)).await?)
    }
}

/// The body `from..from + bytes` as a stream of chunks.
async fn body(reader: Reader, from: u64, bytes: u64) -> io::Result<StreamingBlob> {
    let (read_at_once, in_memory) = (bytes <= AT_ONCE_BYTES_MAX, matches!(reader, Reader::Memory(_)));
    if read_at_once || in_memory {
        let len = usize::try_from(bytes).expect("objects fit in memory");
        let body = if in_memory { reader.read(from, len)? } else { blocking(move || reader.read(from, len)).await? };
        return Ok(s3s::Body::from(body).into());
    }
    let reader = Arc::new(reader);
    let chunks = stream::try_unfold((from, bytes), move |(at, left)| {
        let reader = reader.clone();
        async move {
            let len = usize::try_from(left.min(CHUNK_BYTES)).expect("a small number");
            if len == 0 {
                return io::Result::Ok(None);
            }
            let chunk = blocking(move || reader.read(at, len)).await?;
            if chunk.len() < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Some((chunk, (at + len as u64, left - len as u64))))
        }
    });
    Ok(s3s::Body::http_body_unsync(StreamBody::new(chunks.map_ok(Frame::data))).into())
}

#[async_trait::async_trait]
impl S3 for Protocol {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let etags = etags(&request);
        let facts = self.receive(request.input).await?;
        answer(PutObjectOutput { e_tag: Some(etags.of(&facts)), ..Default::default() })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let etags = etags(&request);
        let GetObjectInput { bucket, key, range, if_match, if_none_match, .. } = request.input;
        let (facts, reader) = self.objects.reader(&bucket, &key)?;
        let e_tag = etags.of(&facts);
        if matches!(&if_match, Some(ETagCondition::ETag(wanted)) if *wanted != e_tag) {
            return Err(s3_error!(PreconditionFailed));
        }
        if matches!(&if_none_match, Some(ETagCondition::ETag(known)) if *known == e_tag) {
            return Err(s3_error!(NotModified));
        }
        let wanted = match &range {
            Some(range) => range.check(facts.bytes)?,
            None => 0..facts.bytes,
        };
        let bytes = wanted.end - wanted.start;
        let content_range = range.map(|_| format!("bytes {}-{}/{}", wanted.start, wanted.end - 1, facts.bytes));
        answer(GetObjectOutput {
            body: Some(body(reader, wanted.start, bytes).await.map_err(S3Error::internal_error)?),
            content_length: Some(signed(bytes)),
            content_range,
            accept_ranges: Some("bytes".into()),
            e_tag: Some(e_tag),
            last_modified: Some(facts.modified.into()),
            ..Default::default()
        })
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let facts = self.objects.facts(&request.input.bucket, &request.input.key)?;
        answer(HeadObjectOutput {
            content_length: Some(signed(facts.bytes)),
            accept_ranges: Some("bytes".into()),
            e_tag: Some(etags(&request).of(&facts)),
            last_modified: Some(facts.modified.into()),
            ..Default::default()
        })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let (objects, DeleteObjectInput { bucket, key, .. }) = (self.objects.clone(), request.input);
        blocking(move || objects.remove(&bucket, &key)).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let (objects, DeleteObjectsInput { bucket, delete, .. }) = (self.objects.clone(), request.input);
        let deleted = blocking(move || -> Result<Vec<_>, ObjectsError> {
            let mut deleted = Vec::with_capacity(delete.objects.len());
            for object in delete.objects {
                objects.remove(&bucket, &object.key)?;
                deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
            }
            Ok(deleted)
        });
        answer(DeleteObjectsOutput { deleted: Some(deleted.await?), ..Default::default() })
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let etags = etags(&request);
        let ListObjectsV2Input { bucket, prefix, delimiter, start_after, continuation_token, max_keys, .. } =
            request.input;
        let max_keys = max_keys.unwrap_or(PAGE_KEYS_MAX).clamp(0, PAGE_KEYS_MAX);
        let resumed = continuation_token.as_deref().map(checks::token_key).transpose()?;
        let page = self.objects.list(
            &bucket,
            prefix.as_deref().unwrap_or_default(),
            delimiter.as_deref(),
            resumed.as_deref().or(start_after.as_deref()),
            usize::try_from(max_keys).expect("not negative"),
        )?;
        let contents: Vec<Object> = page
            .objects
            .iter()
            .map(|facts| Object {
                key: Some(facts.key.clone()),
                size: Some(signed(facts.bytes)),
                e_tag: Some(etags.of(facts)),
                last_modified: Some(facts.modified.into()),
                ..Default::default()
            })
            .collect();
        let count = contents.len() + page.prefixes.len();
        let prefixes = page.prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect();
        answer(ListObjectsV2Output {
            name: Some(bucket),
            prefix,
            delimiter,
            start_after,
            continuation_token,
            max_keys: Some(max_keys),
            key_count: Some(i32::try_from(count).expect("at most a page")),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(checks::token),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            ..Default::default()
        })
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = request.input.bucket;
        if !self.objects.create_bucket(&bucket).map_err(S3Error::internal_error)? {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        answer(CreateBucketOutput { location: Some(format!("/{bucket}")) })
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.objects.bucket_names().contains(&request.input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        answer(HeadBucketOutput::default())
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = |name| Bucket { name: Some(name), ..Default::default() };
        let buckets = self.objects.bucket_names().into_iter().map(bucket).collect();
        answer(ListBucketsOutput { buckets: Some(buckets), ..Default::default() })
    }
}
