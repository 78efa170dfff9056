"""Insert a sample project for development. The program fills only an empty database, so a second run changes nothing."""

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from . import settings
from .models import Project, Task

TASKS = (("Describe the application once", True), ("Edit api/pmanager while it runs", False), ("Release it", False))


def main() -> None:
    with Session(create_engine(settings.database())) as session, session.begin():
        if session.scalar(select(func.count(Project.id))):
            print("the database has projects: nothing to seed")
            return
        tasks = [Task(title=title, done=done) for title, done in TASKS]
        session.add(Project(name="From laptop to production", description="What is left to do.", tasks=tasks))
        print(f"seeded a project with {len(tasks)} tasks")


if __name__ == "__main__":
    main()
