//! The member and its state.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{Served, VERSION, not_here, snapshot, status};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;

#[async_trait]
impl Maintenance for Served {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        if request.get_ref().action() == AlarmAction::Activate {
            return Err(not_here("alarms to raise"));
        }
        let header = self.header(self.store().revision());
        Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let revision = self.store().revision();
        let bytes = i64::try_from(self.folder_bytes()).unwrap_or(i64::MAX);
        let health = self.store().check().await;
        Ok(Response::new(pb::StatusResponse {
            header: self.header(revision),
            version: VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: self.member_id(),
            // There is no other log than the store's.
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: 1,
            errors: health.err().map(|error| error.to_string()).into_iter().collect(),
            ..pb::StatusResponse::default()
        }))
    }

    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(Status::unimplemented(
            "etcdserver: Skiff's store has nothing to defragment, it writes its files anew by itself",
        ))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(not_here("Hash, which compares the files of several members"))
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(not_here("HashKV, which compares the files of several members"))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let made = snapshot::take(&*self.facade.store, &self.facade.keys).await.map_err(status)?;
        let header = self.header(made.revision());
        Ok(Response::new(made.stream(header, VERSION)))
    }

    async fn move_leader(&self, _: Request<pb::MoveLeaderRequest>) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(not_here("MoveLeader: there is one member"))
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(not_here("Downgrade"))
    }
}

impl Served {
    /// What the store's files take.
    fn folder_bytes(&self) -> u64 {
        let Some(files) = self.facade.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok()) else {
            return 0;
        };
        files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
    }
}

#[async_trait]
impl Cluster for Served {
    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(not_here("further members"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(not_here("further members"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(not_here("peer addresses"))
    }

    async fn member_list(&self, _: Request<pb::MemberListRequest>) -> Result<Response<pb::MemberListResponse>, Status> {
        let member = pb::Member {
            id: self.member_id(),
            name: self.facade.name.clone(),
            client_ur_ls: vec![format!("unix://{}", self.socket.display())],
            ..pb::Member::default()
        };
        let header = self.header(self.store().revision());
        Ok(Response::new(pb::MemberListResponse { header, members: vec![member] }))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(not_here("further members"))
    }
}
