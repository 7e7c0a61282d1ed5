// The Korean for the server's English explanations. A test compares the sentences with the server's.

import { has } from "./i18n.js";
import { TEXTS } from "./texts.js";

export const KOREAN = {
  // why a decision about a version is not possible
  "a later version is already in force: roll back to the old version instead": "이후 버전이 이미 시행 중입니다. 이전 내용을 쓰려면 그 버전으로 되돌리세요",
  "its last day, {a}, would be over before it is shown: change a draft's dates, or upload the file of a former version again": "답변에 쓰이기 전에 종료일이 지납니다({a}). 초안이면 날짜를 바꾸고, 지난 버전이면 파일을 다시 올리세요",
  "the dates of a version that is {a} cannot be changed": "이 상태의 버전은 날짜를 바꿀 수 없습니다: {a}",
  "it has begun: its first day can no longer change": "이미 시행되어 시행일은 바꿀 수 없습니다",
  "it is over: upload its file again with the new dates, or roll back to it": "이미 종료되었습니다. 새 날짜로 파일을 다시 올리거나 이 버전으로 되돌리세요",
  "its last day, {a}, is over: expire it instead": "종료일이 지났습니다({a}). 지금 종료하세요",
  "its version was withdrawn": "이미 철회된 버전입니다",
  "only a draft or an approved version can get a title; this version is {a}": "초안이나 승인된 버전만 제목을 바꿀 수 있습니다. 이 버전의 상태: {a}",
  "only a failed version can be dismissed; this version is {a}": "실패한 버전만 목록에서 지울 수 있습니다. 이 버전의 상태: {a}",
  "only a version that was once approved can be rolled back to": "승인된 적이 있는 버전으로만 되돌릴 수 있습니다",
  "only an approved version can expire; this version is {a}": "승인된 버전만 종료할 수 있습니다. 이 버전의 상태: {a}",
  "only an indexed draft can be approved; this version is {a}": "초안만 승인할 수 있습니다. 이 버전의 상태: {a}",
  "only an indexed draft can be rejected; this version is {a}": "초안만 반려할 수 있습니다. 이 버전의 상태: {a}",
  "passage {a} says {b} ({c}): reject this version and load a text without it": "단락 {a}: {b}. 이 버전을 반려하고 그 문구를 뺀 파일을 올리세요",
  "the job is done": "이미 끝난 작업입니다",
  "this version has that title already": "이미 같은 제목입니다",
  "this version is in force: expire the later version instead": "이미 시행 중인 버전입니다. 이후에 시행될 버전을 종료하세요",
  "version {a} has no passages in the index; it is {b}": "버전 {a}의 단락이 색인에 없습니다. 이 버전의 상태: {b}",
  // which field is wrong
  "document_id: letters, digits, '.', '-' and '_', at most 100": "문서 ID에는 글자, 숫자, ‘.’, ‘-’, ‘_’만 100자까지 쓸 수 있습니다",
  "effective_until lies before effective_from": "종료일이 시행일보다 앞섭니다",
  "link: a public address that begins with https://, at most {a} characters": "은행 홈페이지 주소는 https://로 시작하는 공개 주소로 {a}자까지입니다",
  "readers: names of groups without spaces": "그룹 이름에는 공백을 쓸 수 없습니다",
  "title: 1 to 300 characters on one line": "제목은 한 줄로 300자까지입니다",
  "{a}: 1 to 300 characters on one line": "제목과 상품은 한 줄로 300자까지입니다",
  // why a file cannot be read
  "Outlook's .msg files are not supported: save the message as .eml": "Outlook의 .msg 파일은 지원하지 않습니다. .eml로 저장하세요",
  "RTF and PostScript files are not supported": "RTF와 PostScript 파일은 지원하지 않습니다",
  "XML that is not a web page is not supported": "웹 문서가 아닌 XML은 지원하지 않습니다",
  "line {a}: a cell of the table is not closed": "{a}번째 줄: 표의 셀이 닫히지 않았습니다",
  "a page of the PDF is damaged": "PDF의 한 쪽이 손상되었습니다",
  "a part of the archive is damaged, or holds more than it declares": "파일 일부가 손상되었거나 파일에 적힌 크기보다 큽니다",
  "a picture of more than {a} million dots": "그림이 {a}백만 화소를 넘습니다",
  "a row of a sheet holds something other than cells": "시트의 행에 셀이 아닌 것이 있습니다",
  "a row is outside of its sheet's cells": "시트의 셀 영역 밖에 행이 있습니다",
  "a text of the workbook is outside of its table of texts": "엑셀 파일의 텍스트가 텍스트 목록 밖에 있습니다",
  "archives are not supported: upload the files inside one by one": "압축 파일은 지원하지 않습니다. 안의 파일을 하나씩 올리세요",
  "it has more than {a} parts": "{a}개가 넘는 부분으로 나뉘어 있습니다",
  "it has pages that are pictures, and tesseract is not installed: {a}": "그림으로 된 쪽이 있으나 서버에 문자 인식 프로그램(tesseract)이 없습니다",
  "it has pages that are pictures, and tesseract lacks a language: {a}": "그림으로 된 쪽이 있으나 서버의 문자 인식 프로그램(tesseract)에 필요한 언어가 없습니다",
  "it is a distribution copy (배포용): upload the original": "배포용 문서입니다. 원본을 올리세요",
  "its merged cells cover more than a million cells": "병합한 셀이 백만 개를 넘습니다",
  "its pages are blank, or pictures in which no text was recognised": "빈 쪽이거나 글자를 알아볼 수 없는 그림입니다",
  "its shapes are nested deeper than in any presentation": "도형이 지나치게 여러 겹으로 중첩되어 있습니다",
  "its worker died each time": "처리하던 프로그램이 매번 비정상 종료되었습니다",
  "more than a million rows": "백만 행을 넘습니다",
  "more than {a} million characters": "{a}백만 자를 넘습니다",
  "more than {a} pages": "{a}쪽을 넘습니다",
  "more than {a} passages: split the document": "단락이 {a}개를 넘습니다. 문서를 나누세요",
  "no text could be read from it": "읽을 텍스트가 없습니다",
  "old Office formats (.doc, .xls, .ppt) are not supported: save as .docx": "옛 오피스 형식(.doc, .xls, .ppt)은 지원하지 않습니다. .docx로 저장하세요",
  "only pages of PDFs and images are drawn: download the original": "PDF와 그림만 쪽을 보여 줍니다. 원본을 내려받으세요",
  "reading took over {a} s for a page, {b} s on average, or {c} s for the file": "읽는 시간이 한 쪽 {a}초, 평균 {b}초, 파일 전체 {c}초 가운데 하나를 넘었습니다",
  "recognising the characters of a page took too much time or memory": "한 쪽의 글자를 알아보는 데 시간이나 메모리가 너무 많이 듭니다",
  "row {a} of the sheet {b} has a cell that cannot be read": "시트 {b}의 {a}행에 읽을 수 없는 셀이 있습니다",
  "the PDF is damaged": "PDF가 손상되었습니다",
  "the PDF opens only with a password": "암호가 있어야 열리는 PDF입니다",
  "the Subject has more than {a} characters": "메일 제목이 {a}자를 넘습니다",
  "the archive does not say which part is its workbook, its texts or its styles": "파일에 엑셀 문서, 텍스트, 서식이 어디에 있는지 적혀 있지 않습니다",
  "the archive holds two parts of one name: it is unknown which of them is shown": "파일 안에 이름이 같은 부분이 둘 있어 어느 것이 화면에 보이는지 알 수 없습니다",
  "the archive is damaged": "파일이 손상되었습니다",
  "the archive is compressed far more than any document": "일반 문서로 보기 어려울 만큼 압축률이 높습니다",
  "the archive is protected by a password": "암호가 걸린 파일입니다",
  "the archive unpacks to more than 200 MiB or 5,000 parts": "압축을 풀면 크기가 200 MiB를 넘거나 파일이 5,000개를 넘습니다",
  "the bytes are neither a supported format nor text in a known encoding": "지원하는 형식도, 알려진 인코딩의 텍스트도 아닙니다",
  "the document carries macros: save it without them": "매크로가 들어 있습니다. 매크로 없이 저장하세요",
  "the document declares entities, which office documents never do": "오피스 문서에 쓰이지 않는 엔티티 선언이 있습니다",
  "the document inside the archive is damaged{a}": "파일 안의 문서가 손상되었습니다{a}",
  "the document is damaged": "문서가 손상되었습니다",
  "the document is protected by a password": "암호가 걸린 문서입니다",
  "the document is protected by a password or a certificate": "암호나 인증서로 보호된 문서입니다",
  "the document unpacks to more than 200 MiB": "압축을 풀면 200 MiB를 넘습니다",
  "the document's header is damaged": "문서의 머리 부분이 손상되었습니다",
  "the file is empty": "빈 파일입니다",
  "the file is of a kind that may carry macros: save it without them": "매크로를 담을 수 있는 형식입니다. 매크로 없는 형식으로 저장하세요",
  "the file's container is damaged": "파일의 컨테이너가 손상되었습니다",
  "the index does not give back {a} of {b} passages": "색인에서 단락 {b}개 가운데 {a}개를 읽을 수 없습니다",
  "the index holds {a} of {b} passages": "색인에 단락 {b}개 가운데 {a}개만 있습니다",
  "the message is damaged": "메일이 손상되었습니다",
  "the message is encrypted": "암호화된 메일입니다",
  "the picture is damaged": "그림이 손상되었습니다",
  "the program that reads it crashed": "파일을 읽는 프로그램이 비정상 종료되었습니다",
  "the stored file differs from the uploaded one: find out who writes to the store": "저장소의 파일이 올린 파일과 다릅니다. 누가 저장소를 바꾸는지 확인하세요",
  "the text is stored as symbols that no font maps to letters": "텍스트가 글자를 알 수 없는 기호로 저장되어 있습니다",
};

Object.assign(TEXTS.ko, KOREAN); // English needs no texts: `t` returns a key without a text, and the key is the sentence

// Each sentence as a pattern, with a group for each of its values.
const SENTENCES = Object.keys(KOREAN).map((key) => {
  const literals = key.split(/\{\w\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return { key, pattern: new RegExp(`^${literals.join("(.*?)")}$`, "s") };
});

/** Return an explanation as a value of a text (`i18n.js`), which has a translation if it is one of these sentences. */
export function detailOf(sentence) {
  for (const { key, pattern } of SENTENCES) {
    const match = pattern.exec(sentence ?? "");
    if (!match) continue;
    const values = match.slice(1).map((value, index) => ["abc"[index], valueOf(value)]);
    return { said: key, values: Object.fromEntries(values) };
  }
  return sentence;
}

const valueOf = (value) => (has(`state_${value}`) ? { said: `state_${value}` } : value);
