"""Create, read, update and delete projects and their tasks. Each change is committed before the response is sent."""

from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from .models import Project, Task
from .sessions import sessions

router = APIRouter(prefix="/api")

Row = TypeVar("Row", Project, Task)
Title = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=4000)]


class NewProject(BaseModel):
    name: Title
    description: Text = ""


class ProjectChange(BaseModel):
    name: Title = ""
    description: Text = ""


class NewTask(BaseModel):
    title: Title


class TaskChange(BaseModel):
    title: Title = ""
    done: bool = False


class TaskShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    project_id: int
    title: str
    done: bool
    created_at: datetime


class ProjectShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str
    created_at: datetime


class ProjectListed(ProjectShown):
    tasks: int
    done: int


class ProjectWhole(ProjectShown):
    tasks: list[TaskShown]


async def find(session: AsyncSession, kind: type[Row], key: int) -> Row:
    if (row := await session.get(kind, key)) is None:
        raise HTTPException(404, f"there is no such {kind.__name__.lower()}")
    return row


def change(row: Project | Task, body: BaseModel) -> None:
    """Change only the fields that the request contains. The defaults of `body` are ignored."""
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(row, name, value)


@router.get("/projects")
async def newest(limit: int = 100) -> list[ProjectListed]:
    counts = select(Project, func.count(Task.id), func.count(Task.id).filter(Task.done)).outerjoin(Task)
    query = counts.group_by(Project.id).order_by(Project.id.desc()).limit(max(1, min(limit, 500)))
    async with sessions() as session:
        rows = (await session.execute(query)).all()
    return [
        ProjectListed(**ProjectShown.model_validate(project).model_dump(), tasks=tasks, done=done)
        for project, tasks, done in rows
    ]


@router.post("/projects", status_code=201)
async def create(body: NewProject) -> ProjectShown:
    async with sessions.begin() as session:
        project = Project(**body.model_dump())
        session.add(project)
        await session.flush()
        await session.refresh(project)
    return ProjectShown.model_validate(project)


@router.get("/projects/{key}")
async def one(key: int) -> ProjectWhole:
    async with sessions() as session:
        query = select(Project).where(Project.id == key).options(selectinload(Project.tasks))
        project = (await session.execute(query)).scalar_one_or_none()
    if project is None:
        raise HTTPException(404, "there is no such project")
    return ProjectWhole.model_validate(project)


@router.patch("/projects/{key}")
async def edit(key: int, body: ProjectChange) -> ProjectShown:
    async with sessions.begin() as session:
        project = await find(session, Project, key)
        change(project, body)
    return ProjectShown.model_validate(project)


@router.delete("/projects/{key}", status_code=204)
async def remove(key: int) -> None:
    async with sessions.begin() as session:
        await session.delete(await find(session, Project, key))


@router.post("/projects/{key}/tasks", status_code=201)
async def add(key: int, body: NewTask) -> TaskShown:
    async with sessions.begin() as session:
        await find(session, Project, key)
        task = Task(project_id=key, title=body.title)
        session.add(task)
        await session.flush()
        await session.refresh(task)
    return TaskShown.model_validate(task)


@router.patch("/tasks/{key}")
async def tick(key: int, body: TaskChange) -> TaskShown:
    async with sessions.begin() as session:
        task = await find(session, Task, key)
        change(task, body)
    return TaskShown.model_validate(task)


@router.delete("/tasks/{key}", status_code=204)
async def drop(key: int) -> None:
    async with sessions.begin() as session:
        await session.delete(await find(session, Task, key))
