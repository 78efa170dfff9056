import { useCallback, useEffect, useState } from "react";
import { request } from "./api.js";

const price = (cents) => (cents / 100).toLocaleString("en", { style: "currency", currency: "EUR" });

export function App() {
  const [customer, setCustomer] = useState(null);
  const [products, setProducts] = useState([]);
  const [orders, setOrders] = useState([]);
  const [problem, setProblem] = useState("");

  const attempt = useCallback(async (work) => {
    try {
      await work();
      setProblem("");
    } catch (error) {
      if (error.status === 401) setCustomer(null);
      setProblem(error.message);
    }
  }, []);

  const refresh = useCallback(
    () =>
      attempt(async () => {
        setProducts(await request("GET", "/api/products"));
        if (customer) setOrders(await request("GET", "/api/orders"));
      }),
    [attempt, customer],
  );

  useEffect(() => {
    request("GET", "/api/session").then(
      (session) => setCustomer(session.customer),
      () => setCustomer(null),
    );
  }, []);

  useEffect(() => {
    refresh();
  }, [refresh]);

  // Refresh the page while an order waits for the worker.
  const waiting = orders.some((order) => !order.confirmed_at);
  useEffect(() => {
    const timer = waiting && setInterval(refresh, 500);
    return () => clearInterval(timer);
  }, [waiting, refresh]);

  const logIn = (name) => attempt(async () => setCustomer((await request("POST", "/api/session", { customer: name })).customer));
  const logOut = () =>
    attempt(async () => {
      await request("DELETE", "/api/session");
      setCustomer(null);
      setOrders([]);
    });
  const order = (product) =>
    attempt(async () => {
      await request("POST", "/api/orders", { product, quantity: 1 });
      await refresh();
    });

  return (
    <>
      <header>
        <h1>palmonas</h1>
        <Releases />
      </header>
      <Customer customer={customer} logIn={logIn} logOut={logOut} />
      {problem && <p role="alert">{problem}</p>}
      <h2>Palms</h2>
      <ul id="products">
        {products.map((product) => (
          <li key={product.id}>
            <b>{product.name}</b> {price(product.cents)} <small>{product.sold} sold</small>
            {customer && <button onClick={() => order(product.id)}>order one</button>}
          </li>
        ))}
      </ul>
      {customer && <Orders orders={orders} />}
    </>
  );
}

function Customer({ customer, logIn, logOut }) {
  if (customer) {
    return (
      <p>
        Hello, <b id="customer">{customer}</b>. <button onClick={logOut}>log out</button>
      </p>
    );
  }
  return (
    <form action={(form) => logIn(form.get("customer"))}>
      <input name="customer" placeholder="your name" required maxLength={80} />
      <button>log in</button>
    </form>
  );
}

function Orders({ orders }) {
  return (
    <>
      <h2>Your orders</h2>
      <ol id="orders" reversed>
        {orders.map((order) => (
          <li key={order.id}>
            #{order.id}: {order.quantity} × {order.product} <small>{order.confirmed_at ? "confirmed" : "placed"}</small>
          </li>
        ))}
      </ol>
    </>
  );
}

/** Show the release of the page and the release of the api. */
function Releases() {
  const [page, setPage] = useState();
  const [api, setApi] = useState();
  useEffect(() => {
    request("GET", "/release.json").then(setPage, () => {});
    request("GET", "/api/release").then(setApi, () => {});
  }, []);
  const label = (info) => info && `${info.release} (${info.slot})`;
  return (
    <p>
      page <output id="web">{label(page)}</output> · api <output id="api">{label(api)}</output>
    </p>
  );
}
