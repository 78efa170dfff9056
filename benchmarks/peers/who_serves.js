// Send requests over kept and over new connections, and print the time, the status and the release of each response.
import http from "k6/http";

const steady = {
  executor: "constant-arrival-rate",
  rate: 100,
  timeUnit: "1s",
  duration: "58s",
  gracefulStop: "2s",
  preAllocatedVUs: 20,
  maxVUs: 400,
};
export const options = {
  scenarios: {
    kept: { ...steady, exec: "kept" },
    fresh: { ...steady, exec: "fresh", startTime: "5ms" },
  },
};

export const kept = () => request({});
export const fresh = () => request({ Connection: "close" });

function request(headers) {
  const answer = http.get(`${__ENV.URL}/release.json`, { headers: { Host: __ENV.HOST, ...headers }, timeout: "5s" });
  const release = answer.status === 200 ? answer.json("release") : "";
  console.log(JSON.stringify({ at: Date.now(), status: answer.status, error: answer.error, release }));
}
