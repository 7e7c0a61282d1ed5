"""Every question with a search counts for the next drift reference; only admins may read it."""

from uuid import uuid4

import pytest

from tests.e2e.conftest import Product

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


async def test_questions_are_sampled_and_too_few_make_no_reference(product: Product) -> None:
    async with product.client(uuid4().hex) as http, product.client("root", role="platform") as admin:
        for question in ("샘물 정기예금의 기본 금리는 얼마인가요?", "How much does an overseas transfer cost?"):
            await product.ask(http, question)
        reply = await admin.get("/v1/admin/drift/reference")
        # A session's other tests may have asked enough by now.
        seen = reply.json()["questions"] if reply.status_code == 200 else int(reply.json()["detail"].split()[0])
        assert seen >= 2
        assert (await http.get("/v1/admin/drift/reference")).status_code == 403
