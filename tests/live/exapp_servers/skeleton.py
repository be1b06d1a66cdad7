"""What Nextcloud's own skeleton of an ExApp (nextcloud/app-skeleton-python) does, with the same calls of nc_py_api.

Written for these tests, because the skeleton is not on a package index: no line is copied. As it is there: handlers set
in the lifespan, the middleware that checks identities, a blocking `NextcloudApp` in the handler and at import, a page
per access level, a WebSocket that knows its user, and `run_app` with the name of the app, at log level trace.
"""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, JSONResponse
from nc_py_api import NextcloudApp
from nc_py_api.ex_app import AppAPIAuthMiddleware, LogLvl, nc_app, run_app, set_handlers

SOCKET_URL = NextcloudApp().app_cfg.endpoint + "/exapps/skeleton/ws"


def enabled_handler(enabled: bool, nc: NextcloudApp) -> str:
    print(f"enabled={enabled}", flush=True)
    nc.log(LogLvl.WARNING, f"{nc.app_cfg.app_name} is {'here' if enabled else 'gone'}")
    return ""


@asynccontextmanager
async def lifespan(app: FastAPI):
    set_handlers(app, enabled_handler)
    yield


APP = FastAPI(lifespan=lifespan)
APP.add_middleware(AppAPIAuthMiddleware)


@APP.get("/")
async def front():
    return HTMLResponse(f"<!doctype html><title>skeleton</title><p>{SOCKET_URL}")


@APP.get("/public")
async def public():
    return "for everybody"


@APP.get("/user")
async def user(status: int = 200):
    return JSONResponse(content="for users", status_code=status)


@APP.get("/admin")
async def admin():
    return "for admins"


@APP.websocket("/ws")
async def socket(websocket: WebSocket, nc: Annotated[NextcloudApp, Depends(nc_app)]):
    await websocket.accept()

    async def tick():
        number = 0
        while True:
            await websocket.send_text(f"tick {(number := number + 1)} for {nc.user}")
            await asyncio.sleep(0.1)

    ticking = asyncio.create_task(tick())
    try:
        while True:
            await websocket.send_text(f"echo: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        await asyncio.to_thread(NextcloudApp().log, LogLvl.ERROR, "somebody left")
    finally:
        ticking.cancel()


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    run_app("skeleton:APP", log_level="trace")
