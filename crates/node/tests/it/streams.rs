//! The node's server: logs, exec and port-forward, as clients speak them.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::cluster::{Cluster, holds, phase};

async fn get(cluster: &Cluster, path: &str) -> String {
    let mut stream = TcpStream::connect(cluster.kubelet.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn exec(cluster: &Cluster, protocol: &str, query: &str, input: Vec<Vec<u8>>) -> (Vec<u8>, Value) {
    let address = cluster.kubelet.address();
    let mut request = format!("ws://{address}/exec/default/web/app?{query}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    for message in input {
        socket.send(Message::Binary(message.into())).await.unwrap();
    }
    let (mut out, mut status) = (Vec::new(), Value::Null);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { continue };
        match data[0] {
            1 => out.extend_from_slice(&data[1..]),
            3 => status = serde_json::from_slice(&data[1..]).unwrap(),
            other => panic!("channel {other}"),
        }
    }
    (out, status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_carries_input_output_size_and_exit_code() {
    let cluster = Cluster::start().await;
    cluster.create("web", json!({"containers": [{"name": "app", "image": "i:1", "command": ["run"]}]})).await;
    cluster.until("web", |pod| holds(pod, "Ready")).await;

    let (out, status) = exec(&cluster, "v5.channel.k8s.io", "output=1&command=echo&command=3", Vec::new()).await;
    assert_eq!(out, b"echo 3");
    assert_eq!(
        (&status["reason"], &status["details"]["causes"][0]),
        (&json!("NonZeroExitCode"), &json!({"reason": "ExitCode", "message": "3"}))
    );

    let input = vec![b"\0hello".to_vec(), vec![255, 0]];
    let (out, status) = exec(&cluster, "v5.channel.k8s.io", "input=1&output=1&command=cat", input).await;
    assert_eq!((out.as_slice(), &status["status"]), (&b"hello"[..], &json!("Success")));

    let size = [&[4_u8][..], br#"{"Width":80,"Height":24}"#].concat();
    let (out, _) = exec(&cluster, "v4.channel.k8s.io", "output=1&tty=1&command=size", vec![size]).await;
    assert_eq!(out, b"80x24");
    assert!(get(&cluster, "/exec/default/none/app?output=1&command=x").await.starts_with("HTTP/1.1 404"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_port_forward_pairs_channels() {
    let cluster = Cluster::start().await;
    cluster.create("web", json!({"containers": [{"name": "app", "image": "i:1", "command": ["run"]}]})).await;
    cluster.until("web", |pod| holds(pod, "Ready")).await;
    let address = cluster.kubelet.address();
    let mut request = format!("ws://{address}/portForward/default/web?ports=80").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    socket.send(Message::Binary(b"\0quiet".to_vec().into())).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let Some(Ok(Message::Binary(data))) = socket.next().await {
            seen.push(data.to_vec());
        }
    }
    assert_eq!(seen, [vec![0, 80, 0], vec![1, 80, 0], b"\0QUIET".to_vec()]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_served_for_pods_and_components() {
    let cluster = Cluster::start().await;
    let spec =
        json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "i:1", "command": ["say", "hello"]}]});
    cluster.create("talk", spec).await;
    cluster.until("talk", |pod| phase(pod) == "Succeeded").await;
    let answer = get(&cluster, "/containerLogs/default/talk/app?follow=true").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello\n"), "{answer}");
    let answer = get(&cluster, "/containerLogs/default/talk/app?previous=true").await;
    assert!(answer.contains("previous terminated container \"app\" in pod \"talk\" not found"), "{answer}");
    assert!(
        get(&cluster, "/containerLogs/kube-system/kube-scheduler-node/kube-scheduler").await.contains("scheduling\n")
    );
    assert!(get(&cluster, "/stats/summary").await.contains("\"nodeName\":\"node\""));
    assert!(get(&cluster, "/metrics/resource").await.contains("node_memory_working_set_bytes"));
    assert!(get(&cluster, "/pods").await.contains("\"talk\""));
    cluster.stop().await;
}
