"""The API's answers: those of the predictor, whatever is sent beside a good file, and documentation that matches."""

import io
import json
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.middleware import ROUTES
from api.pictures import LINE_HEIGHT
from api.problems import KINDS
from skinlesion.artifacts.patients import Patient
from skinlesion.diagnoses import CLASSES, DIAGNOSES
from skinlesion.serving.predictor import Predictor, load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.api.cases import BODY_START, MULTIPART, Served, image_file, kind_of, problem_of, serve
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace

JPEG = image_file()
PNG_NOTE = "Transparent parts of the image were filled with white."


def test_predictions_are_the_predictors(served: Served, predictor: Predictor) -> None:
    files = [image_file(seed) for seed in range(3)]
    answer = served.predict(*files, operating_point="everything", top_k="2").json()
    expected = predictor.predict([decode_upload(data).image for data in files], point="everything")
    assert answer["operating_point"]["name"] == "everything" and "Not for clinical use" in answer["not_for_clinical_use"]
    assert answer["operating_point"]["sensitivity"]["value"] == 1.0 and answer["operating_point"]["measured_on"] == "val"
    for index, (image, prediction) in enumerate(zip(answer["images"], expected, strict=True)):
        predicted = image["prediction"]
        assert (image["index"], image["name"], image["problem"]) == (index, f"{index}.jpg", None)
        assert [each["diagnosis"] for each in predicted["probabilities"]] == list(CLASSES)
        found = {each["diagnosis"]: each["probability"] for each in predicted["probabilities"]}
        assert found == pytest.approx(prediction.probabilities, abs=1e-5)
        top = [(dx, DIAGNOSES[dx]) for dx, _ in prediction.top(2)]
        assert [(each["diagnosis"], each["name"]) for each in predicted["top"]] == top
        assert predicted["flagged"] is True and predicted["score"] == pytest.approx(prediction.score)
        sets = {str(each["coverage"]): each["diagnoses"] for each in predicted["conformal_sets"]}
        assert sets == {level: None if within is None else list(within) for level, within in prediction.sets.items()}
        assert predicted["warnings"] == list(prediction.warnings)


def test_a_file_s_name_and_what_lies_beside_its_pixels_do_not_decide(served: Served) -> None:
    drawn = encoded(lesion_image(), "PNG")
    text = b"zTXt" + b"a\0\0" + zlib.compress(bytes(3_000_000))
    large = drawn[:33] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + drawn[33:]
    names = [("a.jfif", JPEG), ("b.png", JPEG), ("c", large), ("d.png", drawn)]
    response = served.client.post("/predict", files=[("files", (name, data, "application/octet-stream")) for name, data in names])
    *jpegs, first, second = response.json()["images"]
    assert [image["problem"] for image in (*jpegs, first, second)] == [None] * 4
    assert jpegs[0]["prediction"] == jpegs[1]["prediction"] and first["prediction"] == second["prediction"]


def test_a_refused_file_does_not_keep_the_others_from_an_answer(served: Served) -> None:
    see_through = lesion_image().convert("RGBA")
    see_through.putalpha(100)
    answer = served.predict(b"GIF89a", JPEG, b"", encoded(see_through, "PNG")).json()
    gif, whole, empty, png = answer["images"]
    assert (gif["prediction"], gif["problem"]["type"], gif["problem"]["status"]) == (None, "/docs#unsupported-type", 415)
    assert "This is a GIF" in gif["problem"]["detail"]
    assert empty["problem"]["type"] == "/docs#empty"
    assert whole["problem"] is None and whole["prediction"]["notes"] == []
    assert png["prediction"]["notes"] == [PNG_NOTE] and png["prediction"]["warnings"]
    refused = served.client.get("/metrics").text
    assert 'skinlesion_refused_files_total{reason="unsupported-type"}' in refused


@pytest.mark.parametrize(
    ("files", "status", "kind"),
    [
        ((b"%PDF-1.7",), 415, "unsupported-type"),
        ((JPEG[:400],), 422, "broken"),
        ((b"",), 422, "empty"),
        ((image_file(width=49),), 422, "too-small"),
        ((encoded(lesion_image().convert("CMYK")),), 415, "cmyk"),
        ((bytes(10_000_001),), 413, "too-large"),
        ((b"%PDF", b"GIF89a"), 415, "unsupported-type"),
        ((b"%PDF", b""), 422, "refused"),
    ],
)
def test_where_all_files_are_refused_so_is_the_request(served: Served, files: tuple[bytes, ...], status: int, kind: str) -> None:
    response = served.predict(*files)
    assert kind_of(response, status) == kind
    assert [image["index"] for image in response.json()["images"]] == list(range(len(files)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operating_point": "recal_0.90"}, "did you mean 'recall_0.90'?"),
        ({"top_k": "0"}, "'top_k': Input should be greater than or equal to 1"),
        ({"age": "40"}, "leave out age, sex and localization"),
        ({"sexx": "male"}, "no field 'sexx'; did you mean 'sex'?"),
        ({"age": "forty"}, "'age'"),
        ({"sex": "femal"}, "did you mean 'female'?"),
        ({"files": "text"}, "has no file name"),
        ({"top_k": "1" * 1001}, "more than 1000 bytes"),
        ({"sex": "\xff"}, "no sex"),
    ],
)
def test_a_field_that_is_not_valid_is_refused_by_its_name(served: Served, fields: dict[str, str], message: str) -> None:
    document = problem_of(served.predict(JPEG, **fields), 422)
    assert message in document["detail"] and document["type"] == "/docs#invalid"


def test_a_body_that_is_not_a_form_with_a_file_is_refused(served: Served) -> None:
    client = served.client
    assert kind_of(client.post("/predict", content=JPEG, headers={"content-type": "image/jpeg"}), 415) == "not-multipart"
    assert kind_of(client.post("/predict"), 415) == "not-multipart"
    assert kind_of(client.post("/predict", content=b"junk", headers=MULTIPART), 400)
    assert "no file" in problem_of(client.post("/predict", files={"top_k": (None, b"1")}), 422)["detail"]
    assert "the name 'files'" in problem_of(client.post("/predict", files={"file": JPEG}), 422)["detail"]
    twice = [("files", JPEG), ("top_k", (None, b"1")), ("top_k", (None, b"2"))]
    assert "twice" in problem_of(client.post("/predict", files=twice), 422)["detail"]


def test_names_of_files_lead_nowhere(served: Served) -> None:
    names = ["../../etc/passwd", "a\x00b.jpg", "läsion 😀.jpg", "n" * 500]
    parts = b"".join(BODY_START.replace(b"a.jpg", name.encode()) + JPEG + b"\r\n" for name in names)
    response = served.client.post("/predict", content=parts + b"--x--\r\n", headers=MULTIPART)
    assert [len(image["name"]) for image in response.json()["images"]] == [16, 7, len(names[2]), 200]
    assert all(image["prediction"] for image in response.json()["images"])


def test_age_sex_and_site_reach_a_network_that_takes_them(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path, [{"metadata": True}]), device="cpu")
    with serve(predictor) as served:
        assert served.client.get("/model").json()["takes_metadata"] is True
        answer = served.predict(JPEG, age="70", sex="male", localization="lower extremity").json()
        assert "no localization 'leg'" in problem_of(served.predict(JPEG, localization="leg"), 422)["detail"]
        assert served.explain(JPEG, {"age": "70"}).status_code == 200
        without = served.predict(JPEG).json()
    image = decode_upload(JPEG).image
    known = predictor.predict([image], [Patient(70, "male", "lower extremity")])[0].probabilities
    found = [each["probability"] for each in answer["images"][0]["prediction"]["probabilities"]]
    assert found == pytest.approx(list(known.values()))
    assert without["images"][0]["prediction"] != answer["images"][0]["prediction"]


def test_a_map_is_of_the_diagnosis_that_is_asked_for(served: Served, predictor: Predictor) -> None:
    image = decode_upload(JPEG).image
    alone = served.explain(JPEG, diagnosis="mel", method="LayerCAM", kind="map")
    assert alone.headers["content-type"] == "image/png" and alone.headers["x-diagnosis"] == "mel"
    picture = Image.open(io.BytesIO(alone.content))
    assert "Not for clinical use" in picture.text["Comment"]
    assert picture.width >= image.width and picture.height == image.height + LINE_HEIGHT
    below = np.asarray(picture)[image.height :]
    assert below[0].min() == 255 and (below < 100).any(axis=(0, 2)).sum() > 50  # a line of letters
    picture = picture.crop((0, 0, *image.size))
    heat = predictor.explain(image, diagnosis="mel", method="LayerCAM")
    green = np.asarray(picture)[..., 1].astype(float)  # of viridis, it rises with the value
    assert np.corrcoef(green.ravel(), heat.ravel())[0, 1] > 0.99

    most_probable = predictor.predict([image])[0].top(1)[0][0]
    assert served.explain(JPEG).headers["x-diagnosis"] == most_probable
    clear = np.asarray(Image.open(io.BytesIO(served.explain(JPEG, opacity=0).content)).crop((0, 0, *image.size)))
    np.testing.assert_allclose(clear[..., 0].astype(int), np.asarray(image.convert("L")), atol=1)  # Pillow's, in whole numbers


def test_a_large_image_has_a_map_that_is_not_larger_than_it_tells(served: Served) -> None:
    picture = Image.open(io.BytesIO(served.explain(encoded(Image.new("RGB", (2000, 1500), "tan"))).content))
    assert picture.size == (1024, 768 + LINE_HEIGHT)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"diagnosis": "melanoma"}, "no diagnosis 'melanoma'"),
        ({"method": "GradCam"}, "did you mean 'GradCAM'?"),
        ({"method": "ScoreCAM"}, "no method 'ScoreCAM' here"),
        ({"opacity": 2}, "opacity"),
        ({"kind": "both"}, "'overlay' or 'map'"),
        ({"colour": "red"}, "no parameter 'colour'"),
    ],
)
def test_a_parameter_that_is_not_valid_is_refused_by_its_name(served: Served, query: dict[str, object], message: str) -> None:
    assert message in problem_of(served.explain(JPEG, **query), 422)["detail"]


def test_one_image_is_explained_at_a_time(served: Served) -> None:
    response = served.client.post("/explain", files=[("file", JPEG), ("file", JPEG)])
    assert kind_of(response, 413) == "too-many-files"
    assert kind_of(served.explain(b"GIF89a"), 415) == "unsupported-type"


def test_the_model_says_what_it_is(served: Served, predictor: Predictor) -> None:
    answer = served.client.get("/model").json()
    assert answer["card"] == json.loads(json.dumps(predictor.card()))
    assert answer["classes"] == DIAGNOSES and answer["card"]["fingerprint"] == predictor.config.fingerprint
    assert [point["name"] for point in answer["operating_points"]] == list(predictor.points)
    assert answer["default_operating_point"] == "recall_0.90" and "GradCAM" in answer["methods"]
    assert "ScoreCAM" not in answer["methods"] and "Not for clinical use" in answer["not_for_clinical_use"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/predict/", 404, "not-found"),
        ("GET", "/predict", 405, "method-not-allowed"),
        ("DELETE", "/model", 405, "method-not-allowed"),
        ("OPTIONS", "/predict", 405, "method-not-allowed"),
        ("BREW", "/health", 405, "method-not-allowed"),
        ("GET", "/health?verbose=1", 422, "invalid"),
        ("POST", "/predict?operating_point=nothing", 422, "invalid"),
    ],
)
def test_an_unknown_address_or_method_is_a_problem(served: Served, method: str, path: str, status: int, kind: str) -> None:
    assert kind_of(served.client.request(method, path), status) == kind


@pytest.mark.parametrize("path", [path for path in ROUTES if path not in ("/predict", "/explain")])
@pytest.mark.parametrize("key", [None, "0123456789abcdef"])
def test_head_is_get_without_a_body(predictor: Predictor, path: str, key: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with serve(predictor, rate_limit=0, api_key=key) as served, caplog.at_level(logging.INFO):
        for query in ("", "?unknown=1"):
            get, head = (served.client.request(method, path + query) for method in ("GET", "HEAD"))
            assert (head.status_code, head.content) == (get.status_code, b"") and get.content
            ours = {"x-request-id", *(["content-length"] if path == "/metrics" else [])}  # which counts the requests
            assert {**head.headers, **dict.fromkeys(ours)} == {**get.headers, **dict.fromkeys(ours)}
        lines = [record.method for record in caplog.records if record.name == "api.request"]
        assert lines.count("HEAD") == lines.count("GET") >= 1
        assert served.client.delete(path).headers["allow"] == "GET, HEAD"


def test_head_is_no_way_around_a_refusal_and_in_no_document(served: Served) -> None:
    documented = served.client.get("/openapi.json").json()["paths"]
    assert all(set(methods) in ({"get"}, {"post"}) for methods in documented.values())
    assert set(documented) | {"/docs", "/openapi.json"} == set(ROUTES)
    for path, status, allowed in (("/predict", 405, "POST"), ("/explain", 405, "POST"), ("/nothing", 404, None)):
        head = served.client.head(path)
        assert (head.status_code, head.content, head.headers.get("allow")) == (status, b"", allowed)
    assert served.client.head("/model", headers={"host": "evil.example"}).status_code == 421
    served.service.draining = True
    try:
        stopping = served.client.head("/ready")
    finally:
        served.service.draining = False
    assert (stopping.status_code, stopping.headers["retry-after"], stopping.content) == (503, "1", b"")


def test_every_answer_has_an_id_and_says_how_it_may_be_used(served: Served) -> None:
    for path in ("/health", "/nothing", "/docs"):
        headers = served.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert len(headers["x-request-id"]) == 32
        assert "access-control-allow-origin" not in headers
    assert served.client.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 65, "", "a\tb"):
        assert served.client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"] != bad


def test_the_log_knows_the_request_and_nothing_of_the_image(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        served.client.post("/predict", files={"files": ("jane-doe.jpg", JPEG)}, headers={"x-request-id": "id-7"})
        served.client.get("/jane-doe")
    lines = [record for record in caplog.records if record.name == "api.request"]
    assert [(line.route, line.status) for line in lines] == [("/predict", 200), ("unmatched", 404)]
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]  # the client's own
    assert not any("jane" in record.getMessage() + str(record.__dict__) for record in ours)


def test_our_error_is_in_the_log_alone(served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service, "see", None)
    document = problem_of(served.predict(JPEG, headers={"x-request-id": "id-8"}), 500)
    assert document["type"] == "/docs#internal" and "NoneType" not in json.dumps(document)
    failed = [record for record in caplog.records if record.message == "failed"]
    assert "NoneType" in str(failed[0].exc_info)


def test_counters_have_no_label_that_a_client_chooses(served: Served) -> None:
    for number in range(20):
        served.client.request(f"M{number}", f"/made-up-{number}")
    text = served.client.get("/metrics").text
    assert "made-up" not in text and "M1" not in text
    assert 'skinlesion_requests_total{route="unmatched",status="404"}' in text
    for name in ("batch_images_bucket", "queued_images", "request_seconds_sum", "network_seconds_count", "ready 1.0"):
        assert f"skinlesion_{name}" in text


def test_the_documentation_is_one_page_that_loads_nothing(served: Served) -> None:
    page = served.client.get("/docs").text
    document = served.client.get("/openapi.json").json()
    assert "Not for clinical use" in page and "Not for clinical use" in document["info"]["description"]
    assert "<script" not in page and "src=" not in page
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page
    for kind in KINDS:
        assert f'id="{kind}"' in page
    fields = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert list(fields) == ["files", "age", "sex", "localization", "operating_point", "top_k"]
    assert "HTTPValidationError" not in json.dumps(document)
