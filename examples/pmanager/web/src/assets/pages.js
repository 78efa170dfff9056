import { api } from "./api.js";

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const button = (text, onclick) => element("button", { type: "button", textContent: text, onclick });

function form(placeholder, send) {
  const field = element("input", { placeholder, required: true, maxLength: 200 });
  return element("form", { onsubmit: (event) => { event.preventDefault(); send(field.value); } }, field, element("button", { textContent: "add" }));
}

// Each page is a function that returns the elements of the page. It calls `refresh` after a change, to show the page again.
export async function projects(refresh) {
  const all = await api.projects();
  const row = ({ id, name, tasks, done }) =>
    element("li", {}, "▸", element("a", { href: `/projects/${id}`, textContent: name }), element("small", { textContent: `${done} of ${tasks} done` }));
  return [
    element("h1", { textContent: "Projects" }),
    form("a new project", async (name) => { await api.create(name); refresh(); }),
    element("ul", {}, ...all.map(row)),
  ];
}

export async function project(refresh, id) {
  const { name, description, tasks } = await api.project(id);
  const row = (task) => {
    const box = element("input", { type: "checkbox", checked: task.done, onchange: async () => { await api.tick(task.id, box.checked); refresh(); } });
    const drop = button("×", async () => { await api.drop(task.id); refresh(); });
    return element("li", { className: task.done ? "done" : "" }, box, element("span", { textContent: task.title }), drop);
  };
  return [
    element("h1", { textContent: name }),
    element("p", { textContent: description }),
    form("a new task", async (title) => { await api.add(id, title); refresh(); }),
    element("ul", {}, ...tasks.map(row)),
    button("delete the project", async () => { await api.remove(id); history.pushState(null, "", "/"); refresh(); }),
  ];
}
