//! Questions and answers as bytes.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::DNSClass;

use super::Answer;

/// What we say we take by UDP, and the most we send: fits every path without fragments (DNS flag
/// day 2020).
const DATAGRAM_BYTES: u16 = 1_232;
/// Clients without EDNS take this much (RFC 1035).
const DATAGRAM_BYTES_MIN: u16 = 512;
const HEADER_BYTES: usize = 12;

/// How an answer travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What arrived.
pub(super) enum Request {
    /// A question for us.
    Query(Box<Message>),
    /// Something that gets this answer at once.
    Refused(Vec<u8>),
    /// Something that gets none.
    Noise,
}

/// Reads a query: one question of class IN.
pub(super) fn read(bytes: &[u8]) -> Request {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Request::Noise };
    // Answering answers would start a loop.
    if header[2] & 0x80 != 0 {
        return Request::Noise;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let Ok(message) = Message::from_vec(bytes) else {
        return Request::Refused(encode(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)));
    };
    let refuse = |code| {
        let mut answer = response(&message);
        answer.metadata.response_code = code;
        Request::Refused(encode(&answer))
    };
    if message.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    match &message.queries[..] {
        [query] if query.query_class() == DNSClass::IN => Request::Query(Box::new(message)),
        [_] => refuse(ResponseCode::Refused),
        _ => refuse(ResponseCode::FormErr),
    }
}

/// The answer from the cluster's own zone.
pub(super) fn answer(query: &Message, answer: Answer) -> Message {
    let mut message = response(query);
    message.metadata.authoritative = true;
    message.metadata.response_code = answer.code;
    message.answers = answer.records;
    message.additionals = answer.additional;
    message.authorities = answer.authority.into_iter().collect();
    // Clients take the first address: spread them.
    let count = message.answers.len();
    if count > 1 && message.answers.iter().all(|it| it.record_type() == message.answers[0].record_type()) {
        message.answers.rotate_left(usize::from(query.metadata.id) % count);
    }
    message
}

/// The answer that nobody could give one.
pub(super) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut message = response(query);
    message.metadata.response_code = code;
    message
}

/// The answer an upstream server gave, for this query.
pub(super) fn relay(query: &Message, upstream: &Message) -> Message {
    let mut message = response(query);
    message.metadata.response_code = upstream.metadata.response_code;
    message.metadata.authentic_data = upstream.metadata.authentic_data;
    message.answers.clone_from(&upstream.answers);
    message.authorities.clone_from(&upstream.authorities);
    message.additionals.clone_from(&upstream.additionals);
    message
}

/// The bytes to send: as much as the client takes.
pub(super) fn write(query: &Message, mut message: Message, transport: Transport) -> Vec<u8> {
    let room = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => {
            let offered = query.edns.as_ref().map_or(DATAGRAM_BYTES_MIN, Edns::max_payload);
            usize::from(offered.clamp(DATAGRAM_BYTES_MIN, DATAGRAM_BYTES))
        }
    };
    let mut bytes = encode(&message);
    if bytes.len() > room {
        // Additional records may be left out without a word (RFC 2181, 9).
        message.additionals.clear();
        bytes = encode(&message);
    }
    while bytes.len() > room && !(message.answers.is_empty() && message.authorities.is_empty()) {
        message.metadata.truncation = true;
        message.authorities.clear();
        let fits = message.answers.len() * room / bytes.len();
        message.answers.truncate(fits.min(message.answers.len().saturating_sub(1)));
        bytes = encode(&message);
    }
    bytes
}

fn response(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.recursion_available = true;
    message.queries.clone_from(&query.queries);
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES).set_dnssec_ok(asked.flags().dnssec_ok);
        message.set_edns(edns);
    }
    message
}

fn encode(message: &Message) -> Vec<u8> {
    // Fails only on records that cannot be in a message we made or decoded ourselves.
    message.to_vec().unwrap_or_else(|error| {
        tracing::error!(%error, "DNS answer cannot be encoded");
        let empty = Message::error_msg(message.metadata.id, OpCode::Query, ResponseCode::ServFail);
        empty.to_vec().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn query() -> Message {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii("Web.example.").unwrap(), RecordType::A));
        query
    }

    fn addresses(count: u8) -> Message {
        let name = Name::from_ascii("Web.example.").unwrap();
        let record = |last| Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 0, 0, last)));
        let records = (0..count).map(record).collect();
        let code = ResponseCode::NoError;
        wire_answer(Answer { code, records, additional: Vec::new(), authority: None, chase: None })
    }

    fn wire_answer(it: Answer) -> Message {
        answer(&query(), it)
    }

    #[test]
    fn long_answers_are_cut_to_what_the_client_takes_and_say_so() {
        let short = write(&query(), addresses(4), Transport::Udp);
        assert!(!Message::from_vec(&short).unwrap().metadata.truncation);
        let cut = write(&query(), addresses(200), Transport::Udp);
        assert!(cut.len() <= 512, "{}", cut.len());
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation && cut.answers.len() > 20);
        let mut large = query();
        large.set_edns(Edns::new().set_max_payload(4_096).clone());
        let cut = write(&large, answer_to(&large), Transport::Udp);
        assert!((900..=1_232).contains(&cut.len()), "{}", cut.len());
        assert!(Message::from_vec(&cut).unwrap().edns.is_some());
        let whole = write(&query(), addresses(200), Transport::Tcp);
        assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 200);
    }

    fn answer_to(query: &Message) -> Message {
        let mut message = response(query);
        message.answers = addresses(200).answers;
        message
    }

    #[test]
    fn names_come_back_as_they_were_asked() {
        let bytes = write(&query(), addresses(1), Transport::Udp);
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.queries[0].name().to_ascii(), "Web.example.");
        assert_eq!(answer.answers[0].name.to_ascii(), "Web.example.");
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let code = |bytes: &[u8]| match read(bytes) {
            Request::Query(_) => "query".to_owned(),
            Request::Refused(bytes) => format!("{:?}", Message::from_vec(&bytes).unwrap().metadata.response_code),
            Request::Noise => "noise".to_owned(),
        };
        assert_eq!(code(&query().to_vec().unwrap()), "query");
        assert_eq!(code(&[1, 2, 3]), "noise");
        assert_eq!(code(&addresses(1).to_vec().unwrap()), "noise");
        assert_eq!(code(&query().to_vec().unwrap()[..14]), "FormErr");
        let mut twice = query();
        twice.add_query(Query::query(Name::root(), RecordType::A));
        assert_eq!(code(&twice.to_vec().unwrap()), "FormErr");
        let mut notify = query();
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&notify.to_vec().unwrap()), "NotImp");
        let mut chaos = query();
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos.to_vec().unwrap()), "Refused");
        // The codec calls 16 BADSIG; with EDNS it is BADVERS.
        let mut future = query();
        future.set_edns(Edns::new().set_version(1).clone());
        assert_eq!(code(&future.to_vec().unwrap()), "BADSIG");
    }

    #[test]
    fn random_bytes_never_panic() {
        let random = skiff_base::Random::seeded(5);
        let valid = query().to_vec().unwrap();
        for _ in 0..20_000 {
            let mut bytes = valid.clone();
            for _ in 0..=random.below(4) {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] = random.below(256) as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            let _ = read(&bytes);
        }
    }
}
